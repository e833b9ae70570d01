-- What the agent learns beyond counters and routing: optics, sensors, radios, modems, BFD, netwatch, pools, neighbours,
-- probes.

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

select landing_view(name) from unnest(array['poll_device', 'poll_interface', 'poll_probe_target']::regclass[]) name;
select landing_table(name) from unnest(array[
    'poll_bfd_session', 'poll_sensor', 'poll_netwatch', 'poll_radio', 'poll_lte', 'poll_pool', 'poll_neighbor'
]::regclass[]) name;
