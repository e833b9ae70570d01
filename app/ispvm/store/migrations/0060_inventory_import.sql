-- Imports of the inventory: the server may add and change what operators declare. It may delete none of it.

grant insert, update on site, link, dependency to ispvm;

-- Who changed what by hand. The server adds lines and reads them; it can neither change nor delete one.
create table audit_log (
    id bigint generated always as identity primary key,
    tenant_id smallint not null references tenant,
    at timestamptz not null default now(),
    who text not null,
    action text not null,
    details jsonb not null
);
create index on audit_log (tenant_id, id desc);
select isolate('audit_log');
grant select, insert on audit_log to ispvm;
