-- Who runs the appliance sees how all of it does; another tenant's administrator sees nothing that is not the tenant's.
alter table tenant add operator boolean not null default false;
update tenant set operator = true where id = (select min(id) from tenant);

create function operates(wanted smallint) returns boolean
    language sql stable security definer set search_path = public, pg_temp
begin atomic
    select operator from tenant where id = wanted;
end;
revoke execute on function operates(smallint) from public;
grant execute on function operates(smallint) to ispvm;
