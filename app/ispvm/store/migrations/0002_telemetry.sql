-- Telemetry. A landing row is a poll: everything one router answered about one entity type at one moment, one array per
-- registry metric in the order of the poll's key set. Column names and types follow the registry (a test compares them).
-- The unique index is the only one on raw data; with `set_id` in it two key sets may share a moment.
-- Landing rows live until their day is packed (0003) and two days are over.
--
-- A later migration makes a new landing table with `create table poll_X (…)` and `select landing_table('poll_X')`, and
-- widens one with `alter table poll_X add column …` and `select landing_view('poll_X')`.

create table poll_device (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    interval_s real,
    quality smallint not null default 0,  -- 0 good, 1 estimated, 2 stale; + 4 when it arrived late
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

-- Landing rows as plain rows, one line an entity and moment, in the view sample_X of poll_X. Every column that is not
-- among the first, which all landing tables share, is a metric. Row-level security is the reader's own.
create function landing_view(landing regclass) returns void language plpgsql as $$
declare
    kind text := substr(landing::text, 6);
    metrics text[] := array(
        select quote_ident(attname) from pg_attribute
        where attrelid = landing and attnum > 0 and not attisdropped and attname <> all (array['tenant_id', 'device_id',
            'ts', 'set_id', 'interval_s', 'quality', 'source', 'reset']) order by attnum);
    of_sets boolean := exists (select from pg_attribute where attrelid = landing and attname = 'set_id');
    columns text := array_to_string(metrics, ', ');
    arrays text := 'p.' || array_to_string(metrics, ', p.');
begin
    execute format('create or replace view sample_%s with (security_invoker = true) as ', kind) || case when of_sets then
        'select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,'
        ' coalesce(u.at - 1 = any (p.reset), false) as reset, u.' || array_to_string(metrics, ', u.') ||
        format(' from %s p join entity_set s on s.id = p.set_id', landing) ||
        format(' cross join lateral unnest(%s) with ordinality as u(%s, at)', arrays, columns)
    else
        'select p.tenant_id, p.device_id, e.id as entity_id, p.ts, p.interval_s, p.quality, p.source,'
        ' coalesce(cardinality(p.reset), 0) > 0 as reset, ' || arrays ||
        format(' from %s p join entity e on e.device_id = p.device_id and e.type = %L', landing, kind)
    end;
    execute format('grant select on sample_%s to ispvm, ispvm_worker', kind);
end $$;

create function landing_table(landing regclass) returns void language plpgsql as $$
begin
    perform create_hypertable(landing, by_range('ts', interval '1 day'), create_default_indexes => false);
    perform isolate(landing);
    perform landing_view(landing);
    execute format('grant select, insert, update on %s to ispvm', landing);
    -- append-only: vacuum by inserts, freeze early
    execute format('alter table %s set (autovacuum_vacuum_insert_scale_factor = 0.05)', landing);
end $$;
revoke execute on function landing_view(regclass), landing_table(regclass) from public;

select landing_table(name) from unnest(array['poll_device', 'poll_interface', 'poll_bgp_peer', 'poll_ospf_neighbor',
    'poll_probe_target']::regclass[]) name;

select create_hypertable('event', by_range('ts', interval '7 days'), create_default_indexes => false);

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
    period_s real,  -- how often it really comes: slower columns travel in fewer polls than their interval says
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

select isolate(name) from unnest(array['event', 'latest_poll', 'rollup_dirty', 'ingest_batch']::regclass[]) name;
grant select on event, latest_poll, rollup_dirty, ingest_batch to ispvm;
grant insert, update on latest_poll, rollup_dirty to ispvm;
grant insert on event, ingest_batch to ispvm;
grant update, delete on rollup_dirty to ispvm_worker;
