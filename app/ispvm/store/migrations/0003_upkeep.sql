-- When upkeep ran, and which closed rollup chunks already stand in reading order.
create table upkeep_run (
    id integer generated always as identity primary key,
    ended_at timestamptz not null
);

create table upkeep_ordered (
    chunk name primary key,
    at timestamptz not null default now()
);
