-- Incidents by quarters of an hour, with which the days of every time zone begin. What begins an incident is a change for
-- the worse, counted once. The community edition keeps these counts instead of counting anew (community/face.sql).
create view incident_count with (security_invoker = true) as
select tenant_id, time_bucket('15 minutes', ts) as begin, name, severity, count(*) as n
from event
where name in ('device.reachable.changed', 'device.api.changed') and new = 'down'
   or name = 'bgp.peer.state.changed' and old = 'established'
   or name = 'ospf.neighbor.state.changed' and old = 'full'
group by 1, 2, 3, 4;
grant select on incident_count to ispvm;

-- How the jobs of the community edition do; the Apache edition has none.
create function upkeep_jobs()
    returns table (name text, every_s float8, last_success timestamptz, last_failed boolean, failures bigint,
                   next_start timestamptz, error text)
    language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    return query
    select j.proc_name::text, extract(epoch from j.schedule_interval)::float8,
           nullif(s.last_successful_finish, '-infinity'), coalesce(s.last_run_status = 'Failed', false),
           coalesce(s.total_failures, 0), nullif(s.next_start, '-infinity'),
           (select e.err_message from timescaledb_information.job_errors e where e.job_id = j.job_id
            order by e.start_time desc limit 1)
    from timescaledb_information.jobs j left join timescaledb_information.job_stats s on s.job_id = j.job_id
    where j.job_id >= 1000  -- the extension's own have smaller numbers
    order by 1;
end $$;
revoke execute on function upkeep_jobs() from public;
grant execute on function upkeep_jobs() to ispvm;
