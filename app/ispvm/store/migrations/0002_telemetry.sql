-- Telemetry. A landing row is a poll: everything one router answered about one entity type at one moment, one array per
-- registry metric in the order of the poll's key set. Column names and types follow the registry (a test compares them).
-- The unique index is the only one on raw data; with `set_id` in it two key sets may share a moment.

create table poll_device (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    interval_s real,
    quality smallint not null default 0,  -- 0 good, 1 estimated, 2 stale
    source text not null,
    reset smallint[],
    up boolean,
    api_up boolean,
    uptime_seconds real,
    cpu_pct real,
    mem_used_bytes bigint,
    mem_total_bytes bigint,
    disk_free_bytes bigint,
    temp_c real,
    voltage_v real,
    clock_skew_seconds real,
    clock_uncertainty_seconds real,
    ntp_synced boolean,
    firewall_connections real,
    poll_duration_ms real,
    poll_bytes bigint,
    pppoe_sessions_active real,
    pppoe_sessions_churn_per_min real,
    dhcp_leases_active real,
    unique (device_id, ts)
);

create table poll_interface (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    set_id integer not null,
    interval_s real,
    quality smallint not null default 0,
    source text not null,
    reset smallint[],
    oper_up boolean[],
    admin_up boolean[],
    rx_bps real[],
    tx_bps real[],
    rx_bytes_total bigint[],
    tx_bytes_total bigint[],
    rx_errors_total bigint[],
    tx_errors_total bigint[],
    rx_discards_total bigint[],
    tx_discards_total bigint[],
    link_downs_total bigint[],
    optics_rx_power_dbm real[],
    optics_tx_power_dbm real[],
    optics_temp_c real[],
    unique (device_id, ts, set_id)
);

create table poll_bgp_peer (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    set_id integer not null,
    interval_s real,
    quality smallint not null default 0,
    source text not null,
    reset smallint[],
    bgp_peer_up boolean[],
    bgp_peer_state smallint[],
    bgp_peer_uptime_seconds real[],
    bgp_peer_prefixes_in real[],
    bgp_peer_prefixes_out real[],
    unique (device_id, ts, set_id)
);

create table poll_ospf_neighbor (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    set_id integer not null,
    interval_s real,
    quality smallint not null default 0,
    source text not null,
    reset smallint[],
    ospf_neighbor_up boolean[],
    ospf_neighbor_state smallint[],
    ospf_neighbor_uptime_seconds real[],
    unique (device_id, ts, set_id)
);

create table poll_probe_target (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    set_id integer not null,
    interval_s real,
    quality smallint not null default 0,
    source text not null,
    reset smallint[],
    probe_ping_loss_pct real[],
    probe_ping_rtt_ms real[],
    probe_ping_jitter_ms real[],
    probe_tcp_up boolean[],
    probe_http_up boolean[],
    probe_http_latency_ms real[],
    unique (device_id, ts, set_id)
);

create table event (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    id uuid not null,
    name text not null,
    severity text not null,
    entity_type text not null,
    key text,
    old text,
    new text,
    payload jsonb not null default '{}',
    unique (tenant_id, ts, id)
);

-- One row an entity, metric and hour. `rollup_1m` keeps the hour's 60 minute means (extremes only where a minute has
-- several samples), `rollup_1h` what merges exactly: n, sum, min, max, and the samples themselves for a true percentile.
create table metric (
    id smallint generated always as identity primary key,
    name text not null unique
);

create table rollup_1m (
    tenant_id smallint not null,
    device_id integer not null,
    entity_id integer not null,
    metric_id smallint not null,
    hour timestamptz not null,
    mean real[] not null,
    low real[],
    high real[],
    unique (entity_id, metric_id, hour)
);

create table rollup_1h (
    tenant_id smallint not null,
    device_id integer not null,
    entity_id integer not null,
    metric_id smallint not null,
    hour timestamptz not null,
    n integer not null,
    sum double precision not null,
    min real not null,
    max real not null,
    resets smallint not null default 0,
    samples real[] not null,
    unique (entity_id, metric_id, hour)
);

select create_hypertable('poll_device', by_range('ts', interval '1 day'), create_default_indexes => false);
select create_hypertable('poll_interface', by_range('ts', interval '1 day'), create_default_indexes => false);
select create_hypertable('poll_bgp_peer', by_range('ts', interval '1 day'), create_default_indexes => false);
select create_hypertable('poll_ospf_neighbor', by_range('ts', interval '1 day'), create_default_indexes => false);
select create_hypertable('poll_probe_target', by_range('ts', interval '1 day'), create_default_indexes => false);
select create_hypertable('event', by_range('ts', interval '7 days'), create_default_indexes => false);
select create_hypertable('rollup_1m', by_range('hour', interval '7 days'), create_default_indexes => false);
select create_hypertable('rollup_1h', by_range('hour', interval '30 days'), create_default_indexes => false);

-- The newest poll of each kind a device sends (a kind is a key set and the columns that came). Latest values are read from
-- the landing rows these point at: one small update a poll instead of one an entity.
create table latest_poll (
    tenant_id smallint not null,
    device_id integer not null references device on delete cascade,
    type text not null,
    set_id integer not null default 0,
    columns text[] not null,
    ts timestamptz not null,
    interval_s real,
    primary key (device_id, type, set_id, columns)
) with (fillfactor = 50);

-- Which hours of which device the rollups must recompute, and when. Written by the transaction that stores the data.
create table rollup_dirty (
    tenant_id smallint not null,
    device_id integer not null,
    type text not null,
    hour timestamptz not null,
    due timestamptz not null,
    primary key (device_id, type, hour)
) with (fillfactor = 50);
create index on rollup_dirty (due);

create table ingest_batch (
    agent_id integer not null,
    id uuid not null,
    tenant_id smallint not null,
    received_at timestamptz not null default now(),
    primary key (agent_id, id)
);
create index on ingest_batch (received_at);

do $$
declare name text;
begin
    foreach name in array array['poll_device', 'poll_interface', 'poll_bgp_peer', 'poll_ospf_neighbor',
        'poll_probe_target', 'event', 'rollup_1m', 'rollup_1h', 'latest_poll', 'rollup_dirty', 'ingest_batch']
    loop
        execute format('alter table %I enable row level security, force row level security', name);
        execute format('create policy tenant on %I to ispvm using (tenant_id = (select current_tenant()))', name);
        execute format('create policy everything on %I to ispvm_owner, ispvm_worker using (true)', name);
        execute format('grant select on %I to ispvm, ispvm_worker', name);
        if name like 'poll\_%' then
            -- append-only tables: vacuum by inserts, freeze early
            execute format('alter table %I set (autovacuum_vacuum_insert_scale_factor = 0.05)', name);
        end if;
    end loop;
end $$;

grant insert, update on poll_device, poll_interface, poll_bgp_peer, poll_ospf_neighbor, poll_probe_target,
    latest_poll, rollup_dirty to ispvm;
grant insert on event, ingest_batch to ispvm;
grant insert, update, delete on rollup_1m, rollup_1h to ispvm_worker;
grant update, delete on rollup_dirty to ispvm_worker;
grant select on metric to ispvm, ispvm_worker;
