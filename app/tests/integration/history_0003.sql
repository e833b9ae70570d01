-- A day of one interface as the release of revision 0003 packed it: 60 samples of 100, 101, … 159 from 06:00 on.
insert into metric (name) values ('interface.rx_bps') on conflict do nothing;
insert into sample_day (entity_id, metric_id, tenant_id, day, samples)
    select e.id, m.id, e.tenant_id, '2026-03-01', '\x000001003c000000c0a800003c000000640000000000000028b52ffd203b45000010020201003e0116'
    from entity e, metric m where m.name = 'interface.rx_bps';
insert into rollup_1d (entity_id, metric_id, tenant_id, n, day, max, min, p95, sum, hour_n, resets, sketch, hour_max, hour_min, hour_p95, hour_mean)
    select e.id, m.id, e.tenant_id, 60, '2026-03-01', 159, 100, 156, 7770, '{0,0,0,0,0,0,60,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', 0, '\xff0a00000128b52ffd2035b50000500202020200020402040404003a2929fa8201cba008', '{0,0,0,0,0,0,159,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', '{0,0,0,0,0,0,100,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', '{0,0,0,0,0,0,156,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', '{0,0,0,0,0,0,129.5,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}'
    from entity e, metric m where m.name = 'interface.rx_bps';
