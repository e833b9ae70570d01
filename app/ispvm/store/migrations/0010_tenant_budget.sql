-- What one tenant may ask at most, and the zone in which its days and months are counted. No row: these defaults.
create table tenant_setting (
    tenant_id smallint primary key references tenant on delete cascade,
    time_zone text not null default 'UTC',
    max_range_days integer not null default 1830 check (max_range_days between 1 and 36500),
    max_points smallint not null default 600 check (max_points between 10 and 600),
    max_entities integer not null default 200 check (max_entities between 1 and 10000),
    max_concurrent smallint not null default 8 check (max_concurrent between 1 and 100),
    statement_timeout_ms integer not null default 5000 check (statement_timeout_ms between 100 and 60000)
);
alter table tenant_setting enable row level security, force row level security;
create policy tenant on tenant_setting to ispvm using (tenant_id = (select current_tenant()));
create policy everything on tenant_setting to ispvm_owner, ispvm_worker using (true);
grant select on tenant_setting to ispvm;
