-- TimescaleDB gives a new chunk the rights of its hypertable, but not its row-level security: who may read the table could
-- read the chunk itself, past the policy. Rights on columns are not passed on. So the server has its rights on
-- hypertables column by column, and none on a chunk.
create function grant_columns(hypertable regclass, variadic privileges text[]) returns void language plpgsql as $$
declare
    columns text := (select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
                     where attrelid = hypertable and attnum > 0 and not attisdropped);
    granted text := (select string_agg(format('%s (%s)', privilege, columns), ', ') from unnest(privileges) privilege);
    chunk regclass;
begin
    execute format('revoke all on %s from ispvm', hypertable);
    execute format('grant %s on %s to ispvm', granted, hypertable);
    -- a grant reaches the chunks that are there
    for chunk in select show_chunks(hypertable) loop
        execute format('revoke all on %s from ispvm', chunk);
    end loop;
end $$;
revoke execute on function grant_columns(regclass, text[]) from public;

-- The view again, and the rights with it: a later migration that widens a landing table calls this.
alter function landing_view(regclass) rename to landing_view_alone;
create function landing_view(landing regclass) returns void language plpgsql as $$
begin
    perform landing_view_alone(landing);
    perform grant_columns(landing, 'select', 'insert', 'update');
end $$;
create or replace function landing_table(landing regclass) returns void language plpgsql as $$
begin
    perform create_hypertable(landing, by_range('ts', interval '1 day'), create_default_indexes => false);
    perform isolate(landing);
    perform landing_view(landing);
    -- append-only: vacuum by inserts, freeze early
    execute format('alter table %s set (autovacuum_vacuum_insert_scale_factor = 0.05)', landing);
end $$;
revoke execute on function landing_view(regclass), landing_view_alone(regclass) from public;

select landing_view(format('%I', hypertable_name)::regclass) from timescaledb_information.hypertables
where hypertable_name like 'poll\_%';
-- The community edition has taken the server's rights on tables without row-level security already.
select grant_columns(oid::regclass, variadic case when relname = 'event' then array['select', 'insert'] else array['select'] end)
from pg_class where oid = any (array['event', 'sample_day', 'rollup_1d']::regclass[]) and relrowsecurity;
