-- History: one row an entity, metric and day, so that a chart of 90 days reads 90 rows of one index range.

create table metric (
    id smallint generated always as identity primary key,
    name text not null unique
);
grant select on metric to ispvm, ispvm_worker;

-- Every sample of the day, packed (app/ispvm/store/packing.py says how). When raw retention is over, `samples` are minute
-- means; `low` and `high`, packed the same way, are there when a minute had several samples.
create table sample_day (
    day date not null,
    entity_id integer not null,
    metric_id smallint not null,
    tenant_id smallint not null,
    samples bytea not null,
    low bytea,
    high bytea,
    resets integer[],  -- seconds of the day at which the counter had gone backwards
    late integer[],  -- stretches that arrived late: first second, last second, first second, …
    unique (entity_id, metric_id, day)
);

-- What merges: the day as a whole, its 24 hours (n is 0 where an hour has no sample), and a sketch of its values, from which
-- the percentile of several days is read. `p95` is that of the samples themselves, of the day or of the hour.
create table rollup_1d (
    day date not null,
    entity_id integer not null,
    metric_id smallint not null,
    tenant_id smallint not null,
    n integer not null,
    resets integer not null default 0,
    sum double precision not null,
    min real not null,
    max real not null,
    p95 real not null,
    hour_n smallint[] not null,
    hour_mean real[] not null,
    hour_min real[],  -- null when every hour's extremes and percentile are its mean
    hour_max real[],
    hour_p95 real[],
    sketch bytea not null,
    unique (entity_id, metric_id, day)
);

select create_hypertable('sample_day', by_range('day', interval '7 days'), create_default_indexes => false);
select create_hypertable('rollup_1d', by_range('day', interval '30 days'), create_default_indexes => false);

-- The order of "the ten largest of one metric over some days", answered from the index alone.
create index rollup_1d_top on rollup_1d (tenant_id, metric_id, day, entity_id) include (n, resets, sum, max, p95);

-- Packed bytes do not shrink further and are read as they lie: kept in the row, not beside it. Arrays are compressed.
alter table sample_day alter samples set storage external, alter low set storage external, alter high set storage external;
alter table sample_day set (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0.05);
alter table rollup_1d alter hour_n set storage main, alter hour_mean set storage main, alter hour_min set storage main,
    alter hour_max set storage main, alter hour_p95 set storage main, alter sketch set storage main;
alter table rollup_1d set (toast_tuple_target = 128, autovacuum_vacuum_scale_factor = 0.05);

create view rollup_1h with (security_invoker = true) as
select r.tenant_id, r.entity_id, r.metric_id, r.day,
       r.day::timestamp at time zone 'UTC' + make_interval(hours => h.at::int - 1) as hour, h.n, h.mean,
       coalesce(h.min, h.mean) as min, coalesce(h.max, h.mean) as max, coalesce(h.p95, h.mean) as p95
from rollup_1d r, unnest(r.hour_n, r.hour_mean, r.hour_min, r.hour_max, r.hour_p95)
     with ordinality as h(n, mean, min, max, p95, at)
where h.n > 0;

select isolate(name) from unnest(array['sample_day', 'rollup_1d']::regclass[]) name;
grant select on sample_day, rollup_1d, rollup_1h to ispvm;
grant insert, update on sample_day, rollup_1d to ispvm_worker;
grant select on rollup_1h to ispvm_worker;

-- When upkeep ran, and which chunks of sample_day already hold minute means.
create table upkeep_run (
    id integer generated always as identity primary key,
    ended_at timestamptz not null
);

create table upkeep_thinned (
    chunk name primary key,
    at timestamptz not null default now()
);
