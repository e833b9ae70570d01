-- What the agent learns beyond counters and routing: optics, sensors, radios, modems, BFD, netwatch, pools, neighbours,
-- probes. Columns follow the registry, as in the first landing tables; the views show new columns last.

alter table poll_device add column clock_lost boolean;
alter table poll_device add column ntp_offset_ms real;
alter table poll_device add column ntp_stratum real;
alter table poll_device add column firmware_upgrade_pending boolean;
alter table poll_device add column packages_enabled real;
alter table poll_device add column packages_versions real;
alter table poll_device add column flagged boolean;
alter table poll_device add column sessions_api real;
alter table poll_device add column sessions_people real;
alter table poll_device add column neighbors real;
alter table poll_device add column queue_simple_count real;
alter table poll_device add column queue_simple_dropped_total bigint;
alter table poll_device add column queue_simple_queued_bytes bigint;

alter table poll_interface add column link_bps real[];
alter table poll_interface add column full_duplex boolean[];
alter table poll_interface add column optics_voltage_v real[];
alter table poll_interface add column optics_bias_ma real[];
alter table poll_interface add column optics_rx_loss boolean[];
alter table poll_interface add column optics_tx_fault boolean[];

alter table poll_probe_target add column probe_tcp_connect_ms real[];
alter table poll_probe_target add column probe_http_status real[];
alter table poll_probe_target add column probe_dns_up boolean[];
alter table poll_probe_target add column probe_dns_latency_ms real[];

create table poll_bfd_session (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    set_id integer not null,
    interval_s real,
    quality smallint not null default 0,
    source text not null,
    reset smallint[],
    bfd_session_up boolean[],
    bfd_session_uptime_seconds real[],
    unique (device_id, ts, set_id)
);

create table poll_sensor (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    set_id integer not null,
    interval_s real,
    quality smallint not null default 0,
    source text not null,
    reset smallint[],
    ok boolean[],
    temp_c real[],
    fan_rpm real[],
    voltage_v real[],
    current_a real[],
    power_w real[],
    unique (device_id, ts, set_id)
);

create table poll_netwatch (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    set_id integer not null,
    interval_s real,
    quality smallint not null default 0,
    source text not null,
    reset smallint[],
    up boolean[],
    rtt_ms real[],
    jitter_ms real[],
    loss_pct real[],
    unique (device_id, ts, set_id)
);

create table poll_radio (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    set_id integer not null,
    interval_s real,
    quality smallint not null default 0,
    source text not null,
    reset smallint[],
    clients real[],
    signal_dbm real[],
    signal_worst_dbm real[],
    unique (device_id, ts, set_id)
);

create table poll_lte (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    set_id integer not null,
    interval_s real,
    quality smallint not null default 0,
    source text not null,
    reset smallint[],
    registered boolean[],
    rssi_dbm real[],
    rsrp_dbm real[],
    rsrq_db real[],
    sinr_db real[],
    unique (device_id, ts, set_id)
);

create table poll_pool (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    set_id integer not null,
    interval_s real,
    quality smallint not null default 0,
    source text not null,
    reset smallint[],
    size real[],
    used real[],
    used_pct real[],
    unique (device_id, ts, set_id)
);

create table poll_neighbor (
    tenant_id smallint not null,
    device_id integer not null,
    ts timestamptz not null,
    set_id integer not null,
    interval_s real,
    quality smallint not null default 0,
    source text not null,
    reset smallint[],
    up boolean[],
    unique (device_id, ts, set_id)
);

select create_hypertable('poll_bfd_session', by_range('ts', interval '1 day'), create_default_indexes => false);
select create_hypertable('poll_sensor', by_range('ts', interval '1 day'), create_default_indexes => false);
select create_hypertable('poll_netwatch', by_range('ts', interval '1 day'), create_default_indexes => false);
select create_hypertable('poll_radio', by_range('ts', interval '1 day'), create_default_indexes => false);
select create_hypertable('poll_lte', by_range('ts', interval '1 day'), create_default_indexes => false);
select create_hypertable('poll_pool', by_range('ts', interval '1 day'), create_default_indexes => false);
select create_hypertable('poll_neighbor', by_range('ts', interval '1 day'), create_default_indexes => false);

do $$
declare name text;
begin
    foreach name in array array[
        'poll_bfd_session', 'poll_sensor', 'poll_netwatch', 'poll_radio', 'poll_lte', 'poll_pool', 'poll_neighbor'
    ]
    loop
        execute format('alter table %I enable row level security, force row level security', name);
        execute format('create policy tenant on %I to ispvm using (tenant_id = (select current_tenant()))', name);
        execute format('create policy everything on %I to ispvm_owner, ispvm_worker using (true)', name);
        execute format('grant select on %I to ispvm, ispvm_worker', name);
        execute format('grant insert, update on %I to ispvm', name);
        execute format('alter table %I set (autovacuum_vacuum_insert_scale_factor = 0.05)', name);
    end loop;
end $$;

create or replace view sample_device with (security_invoker = true) as
select p.tenant_id, p.device_id, e.id as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(cardinality(p.reset), 0) > 0 as reset,
       p.up, p.api_up, p.uptime_seconds, p.cpu_pct, p.mem_used_bytes, p.mem_total_bytes, p.disk_free_bytes, p.temp_c,
       p.voltage_v, p.clock_skew_seconds, p.clock_uncertainty_seconds, p.ntp_synced, p.firewall_connections,
       p.poll_duration_ms, p.poll_bytes, p.pppoe_sessions_active, p.pppoe_sessions_churn_per_min,
       p.dhcp_leases_active, p.clock_lost, p.ntp_offset_ms, p.ntp_stratum, p.firmware_upgrade_pending,
       p.packages_enabled, p.packages_versions, p.flagged, p.sessions_api, p.sessions_people, p.neighbors,
       p.queue_simple_count, p.queue_simple_dropped_total, p.queue_simple_queued_bytes
from poll_device p join entity e on e.device_id = p.device_id and e.type = 'device';

create or replace view sample_interface with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.oper_up, u.admin_up, u.rx_bps, u.tx_bps, u.rx_bytes_total, u.tx_bytes_total, u.rx_errors_total,
       u.tx_errors_total, u.rx_discards_total, u.tx_discards_total, u.link_downs_total, u.optics_rx_power_dbm,
       u.optics_tx_power_dbm, u.optics_temp_c, u.link_bps, u.full_duplex, u.optics_voltage_v, u.optics_bias_ma,
       u.optics_rx_loss, u.optics_tx_fault
from poll_interface p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.oper_up, p.admin_up, p.rx_bps, p.tx_bps, p.rx_bytes_total, p.tx_bytes_total, p.rx_errors_total,
    p.tx_errors_total, p.rx_discards_total, p.tx_discards_total, p.link_downs_total, p.optics_rx_power_dbm,
    p.optics_tx_power_dbm, p.optics_temp_c, p.link_bps, p.full_duplex, p.optics_voltage_v, p.optics_bias_ma,
    p.optics_rx_loss, p.optics_tx_fault
) with ordinality as u(
    oper_up, admin_up, rx_bps, tx_bps, rx_bytes_total, tx_bytes_total, rx_errors_total, tx_errors_total,
    rx_discards_total, tx_discards_total, link_downs_total, optics_rx_power_dbm, optics_tx_power_dbm, optics_temp_c,
    link_bps, full_duplex, optics_voltage_v, optics_bias_ma, optics_rx_loss, optics_tx_fault, at
);

create or replace view sample_probe_target with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.probe_ping_loss_pct, u.probe_ping_rtt_ms, u.probe_ping_jitter_ms, u.probe_tcp_up, u.probe_http_up,
       u.probe_http_latency_ms, u.probe_tcp_connect_ms, u.probe_http_status, u.probe_dns_up, u.probe_dns_latency_ms
from poll_probe_target p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.probe_ping_loss_pct, p.probe_ping_rtt_ms, p.probe_ping_jitter_ms, p.probe_tcp_up, p.probe_http_up,
    p.probe_http_latency_ms, p.probe_tcp_connect_ms, p.probe_http_status, p.probe_dns_up, p.probe_dns_latency_ms
) with ordinality as u(
    probe_ping_loss_pct, probe_ping_rtt_ms, probe_ping_jitter_ms, probe_tcp_up, probe_http_up, probe_http_latency_ms,
    probe_tcp_connect_ms, probe_http_status, probe_dns_up, probe_dns_latency_ms, at
);

create view sample_bfd_session with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.bfd_session_up, u.bfd_session_uptime_seconds
from poll_bfd_session p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.bfd_session_up, p.bfd_session_uptime_seconds
) with ordinality as u(
    bfd_session_up, bfd_session_uptime_seconds, at
);

create view sample_sensor with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.ok, u.temp_c, u.fan_rpm, u.voltage_v, u.current_a, u.power_w
from poll_sensor p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.ok, p.temp_c, p.fan_rpm, p.voltage_v, p.current_a, p.power_w
) with ordinality as u(
    ok, temp_c, fan_rpm, voltage_v, current_a, power_w, at
);

create view sample_netwatch with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.up, u.rtt_ms, u.jitter_ms, u.loss_pct
from poll_netwatch p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.up, p.rtt_ms, p.jitter_ms, p.loss_pct
) with ordinality as u(
    up, rtt_ms, jitter_ms, loss_pct, at
);

create view sample_radio with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.clients, u.signal_dbm, u.signal_worst_dbm
from poll_radio p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.clients, p.signal_dbm, p.signal_worst_dbm
) with ordinality as u(
    clients, signal_dbm, signal_worst_dbm, at
);

create view sample_lte with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.registered, u.rssi_dbm, u.rsrp_dbm, u.rsrq_db, u.sinr_db
from poll_lte p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.registered, p.rssi_dbm, p.rsrp_dbm, p.rsrq_db, p.sinr_db
) with ordinality as u(
    registered, rssi_dbm, rsrp_dbm, rsrq_db, sinr_db, at
);

create view sample_pool with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.size, u.used, u.used_pct
from poll_pool p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.size, p.used, p.used_pct
) with ordinality as u(
    size, used, used_pct, at
);

create view sample_neighbor with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.up
from poll_neighbor p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.up
) with ordinality as u(
    up, at
);

grant select on
    sample_bfd_session, sample_sensor, sample_netwatch, sample_radio, sample_lte, sample_pool, sample_neighbor
    to ispvm, ispvm_worker;
