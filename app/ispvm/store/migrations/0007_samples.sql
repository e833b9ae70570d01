-- Landing rows as plain rows: one line an entity and moment. Row-level security is the reader's own.

create view sample_device with (security_invoker = true) as
select p.tenant_id, p.device_id, e.id as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(cardinality(p.reset), 0) > 0 as reset,
       p.up, p.api_up, p.uptime_seconds, p.cpu_pct, p.mem_used_bytes, p.mem_total_bytes, p.disk_free_bytes,
       p.temp_c, p.voltage_v, p.clock_skew_seconds, p.clock_uncertainty_seconds, p.ntp_synced,
       p.firewall_connections, p.poll_duration_ms, p.poll_bytes, p.pppoe_sessions_active,
       p.pppoe_sessions_churn_per_min, p.dhcp_leases_active
from poll_device p join entity e on e.device_id = p.device_id and e.type = 'device';

create view sample_interface with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.oper_up, u.admin_up, u.rx_bps, u.tx_bps, u.rx_bytes_total, u.tx_bytes_total, u.rx_errors_total,
       u.tx_errors_total, u.rx_discards_total, u.tx_discards_total, u.link_downs_total, u.optics_rx_power_dbm,
       u.optics_tx_power_dbm, u.optics_temp_c
from poll_interface p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.oper_up, p.admin_up, p.rx_bps, p.tx_bps, p.rx_bytes_total, p.tx_bytes_total, p.rx_errors_total,
    p.tx_errors_total, p.rx_discards_total, p.tx_discards_total, p.link_downs_total, p.optics_rx_power_dbm,
    p.optics_tx_power_dbm, p.optics_temp_c
) with ordinality as u(oper_up, admin_up, rx_bps, tx_bps, rx_bytes_total, tx_bytes_total, rx_errors_total, tx_errors_total,
    rx_discards_total, tx_discards_total, link_downs_total, optics_rx_power_dbm, optics_tx_power_dbm, optics_temp_c, at);

create view sample_bgp_peer with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.bgp_peer_up, u.bgp_peer_state, u.bgp_peer_uptime_seconds, u.bgp_peer_prefixes_in, u.bgp_peer_prefixes_out
from poll_bgp_peer p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.bgp_peer_up, p.bgp_peer_state, p.bgp_peer_uptime_seconds, p.bgp_peer_prefixes_in, p.bgp_peer_prefixes_out
) with ordinality as u(bgp_peer_up, bgp_peer_state, bgp_peer_uptime_seconds, bgp_peer_prefixes_in, bgp_peer_prefixes_out, at);

create view sample_ospf_neighbor with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.ospf_neighbor_up, u.ospf_neighbor_state, u.ospf_neighbor_uptime_seconds
from poll_ospf_neighbor p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.ospf_neighbor_up, p.ospf_neighbor_state, p.ospf_neighbor_uptime_seconds
) with ordinality as u(ospf_neighbor_up, ospf_neighbor_state, ospf_neighbor_uptime_seconds, at);

create view sample_probe_target with (security_invoker = true) as
select p.tenant_id, p.device_id, s.entities[u.at] as entity_id, p.ts, p.interval_s, p.quality, p.source,
       coalesce(u.at - 1 = any (p.reset), false) as reset,
       u.probe_ping_loss_pct, u.probe_ping_rtt_ms, u.probe_ping_jitter_ms, u.probe_tcp_up, u.probe_http_up,
       u.probe_http_latency_ms
from poll_probe_target p join entity_set s on s.id = p.set_id
cross join lateral unnest(
    p.probe_ping_loss_pct, p.probe_ping_rtt_ms, p.probe_ping_jitter_ms, p.probe_tcp_up, p.probe_http_up,
    p.probe_http_latency_ms
) with ordinality as u(probe_ping_loss_pct, probe_ping_rtt_ms, probe_ping_jitter_ms, probe_tcp_up, probe_http_up, probe_http_latency_ms, at);

grant select on sample_device, sample_interface, sample_bgp_peer, sample_ospf_neighbor, sample_probe_target to ispvm, ispvm_worker;
