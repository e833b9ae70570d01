-- Who and what there is: deployment, tenants, inventory, agents, people.

create table deployment (
    singleton boolean primary key default true check (singleton),
    environment text not null check (environment in ('production', 'lab', 'demo')),
    since timestamptz not null default now()
);

create function deployment_guard() returns trigger language plpgsql as $$
begin
    if old.environment = 'production' and (tg_op = 'DELETE' or new.environment <> 'production') then
        raise exception 'this database is marked production, which never changes'
            using errcode = 'restrict_violation';
    end if;
    if tg_op = 'DELETE' then return old; end if;
    return new;
end $$;
create trigger deployment_guard before update or delete on deployment
    for each row execute function deployment_guard();

-- Surrogate ids keep the rows of the landing tables small; the outside world only sees keys and uuids.
create table tenant (
    id smallint generated always as identity primary key,
    key text not null unique check (length(key) between 1 and 255),
    name text not null,
    seeded boolean not null default false
);

-- The tenant of the running transaction; null, which matches no row, when none was set.
create function current_tenant() returns smallint language sql stable parallel safe
    return nullif(current_setting('ispvm.tenant', true), '')::smallint;

create table site (
    id integer generated always as identity primary key,
    tenant_id smallint not null references tenant,
    key text not null,
    name text not null,
    latitude double precision,
    longitude double precision,
    unique (tenant_id, key)
);

create table agent (
    id integer generated always as identity primary key,
    tenant_id smallint not null references tenant,
    name text not null,
    token_sha256 bytea not null unique check (length(token_sha256) = 32),
    revoked_at timestamptz,
    version text,
    capabilities text[] not null default '{}',
    started_at timestamptz,
    last_heartbeat timestamptz,
    last_batch timestamptz,
    clock_error_s real,
    clock_synchronised boolean,
    buffer_depth integer not null default 0,
    buffer_bytes bigint not null default 0,
    oldest_buffered timestamptz,
    dropped_batches integer not null default 0,
    unique (tenant_id, name)
) with (fillfactor = 50);

create table agent_site (
    agent_id integer not null references agent on delete cascade,
    site_id integer not null references site on delete cascade,
    tenant_id smallint not null references tenant,
    primary key (agent_id, site_id)
);
create index on agent_site (site_id);

create table device (
    id integer generated always as identity primary key,
    tenant_id smallint not null references tenant,
    uuid uuid not null,
    site_id integer not null references site,
    agent_id integer references agent on delete set null,
    name text not null,
    role text,
    address text not null,
    vendor text not null default 'MikroTik',
    model text,
    routeros text,
    serial text,
    identity text,
    architecture text,
    tags text[] not null default '{}',
    unique (tenant_id, uuid),
    unique (tenant_id, name)
);
create index on device (site_id);
create index on device (agent_id);

-- Whatever has metrics of its own. A device is its own entity, of type 'device' with the empty key.
create table entity (
    id integer generated always as identity primary key,
    tenant_id smallint not null references tenant,
    device_id integer not null references device on delete cascade,
    type text not null,
    key text not null,
    name text not null,
    capacity_bps bigint check (capacity_bps > 0),
    expected boolean not null default false,
    tags text[] not null default '{}',
    attributes jsonb not null default '{}',
    unique (device_id, type, key)
);

-- An ordered key set as the agent named it; the arrays of a poll are in this order.
create table entity_set (
    id integer generated always as identity primary key,
    tenant_id smallint not null references tenant,
    device_id integer not null references device on delete cascade,
    type text not null,
    name text not null,
    entities integer[] not null,
    unique (device_id, type, name)
);

create table link (
    id integer generated always as identity primary key,
    tenant_id smallint not null references tenant,
    name text not null,
    a_entity integer not null references entity on delete cascade,
    b_entity integer not null references entity on delete cascade,
    capacity_bps bigint not null check (capacity_bps > 0),
    medium text not null,
    unique (tenant_id, name)
);
create index on link (a_entity);
create index on link (b_entity);

create table dependency (
    tenant_id smallint not null references tenant,
    child_id integer primary key references device on delete cascade,
    mode text not null check (mode in ('any', 'all', 'kofn')),
    k smallint check ((mode = 'kofn') = (k is not null)),
    members integer[] not null
);
create index on dependency (tenant_id);

create table probe_target (
    id integer generated always as identity primary key,
    tenant_id smallint not null references tenant,
    site_id integer not null references site on delete cascade,
    name text not null,
    kind text not null check (kind in ('icmp', 'tcp', 'http', 'dns')),
    address text not null,
    unique (tenant_id, name)
);

-- How an agent gets on with a router, from its last heartbeat.
create table agent_router (
    device_id integer primary key references device on delete cascade,
    tenant_id smallint not null references tenant,
    agent_id integer not null references agent on delete cascade,
    state text not null,
    detail text not null default '',
    last_good timestamptz,
    poll_ms real,
    bytes_per_poll integer,
    disabled_collectors jsonb not null default '{}',
    at timestamptz not null
) with (fillfactor = 50);
create index on agent_router (agent_id);

create table app_user (
    id integer generated always as identity primary key,
    tenant_id smallint not null references tenant,
    name text not null unique check (name ~ '^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$'),
    role text not null check (role in ('admin', 'noc', 'readonly')),
    password_hash text,
    disabled boolean not null default false
);
create index on app_user (tenant_id);

create table login_link (
    token_sha256 bytea primary key check (length(token_sha256) = 32),
    tenant_id smallint not null references tenant,
    user_id integer not null references app_user on delete cascade,
    expires_at timestamptz not null,
    used_at timestamptz
);
create index on login_link (user_id);

create table login_session (
    token_sha256 bytea primary key check (length(token_sha256) = 32),
    tenant_id smallint not null references tenant,
    user_id integer not null references app_user on delete cascade,
    -- Whoever came by a one-time link may set a password without knowing the old one.
    by_link boolean not null default false,
    created_at timestamptz not null default now(),
    seen_at timestamptz not null default now()
);
create index on login_session (user_id);

-- Isolation. The server sees one tenant a transaction; owner and worker see all. For every table with a tenant_id.
create function isolate(name regclass) returns void language plpgsql as $$
begin
    execute format('alter table %s enable row level security, force row level security', name);
    execute format('create policy tenant on %s to ispvm using (tenant_id = (select current_tenant()))', name);
    execute format('create policy everything on %s to ispvm_owner, ispvm_worker using (true)', name);
    execute format('grant select on %s to ispvm_worker', name);
end $$;
revoke execute on function isolate(regclass) from public;
select isolate(name) from unnest(array['site', 'agent', 'agent_site', 'device', 'entity', 'entity_set',
    'link', 'dependency', 'probe_target', 'agent_router',
    'app_user', 'login_link', 'login_session']::regclass[]) name;
alter table tenant enable row level security, force row level security;
create policy tenant on tenant to ispvm using (id = (select current_tenant()));
create policy everything on tenant to ispvm_owner, ispvm_worker using (true);

grant select on deployment, tenant to ispvm, ispvm_worker;
grant select on site, link, dependency, probe_target, agent_site, agent to ispvm;
grant update (version, capabilities, started_at, last_heartbeat, last_batch, clock_error_s, clock_synchronised,
    buffer_depth, buffer_bytes, oldest_buffered, dropped_batches) on agent to ispvm;
grant select, insert, update on device, entity, entity_set, agent_router to ispvm;
grant select on app_user to ispvm;
grant select, delete on login_session to ispvm;

-- What must be answered before a tenant is known. Each takes a secret's hash (or a name) and gives one row or none.
create function agent_by_token(hash bytea)
    returns table (id integer, tenant_id smallint, tenant_key text, name text, revoked boolean, sites integer[])
    language sql stable security definer set search_path = public, pg_temp
begin atomic
    select a.id, a.tenant_id, t.key, a.name, a.revoked_at is not null,
           array(select s.site_id from agent_site s where s.agent_id = a.id)
    from agent a join tenant t on t.id = a.tenant_id where a.token_sha256 = hash;
end;

create function user_by_session(hash bytea)
    returns table (id integer, tenant_id smallint, tenant_name text, name text, role text, has_password boolean,
                   by_link boolean)
    language sql volatile security definer set search_path = public, pg_temp
begin atomic
    update login_session set seen_at = now()
        where token_sha256 = hash and seen_at < now() - interval '1 minute'
          and seen_at > now() - interval '12 hours' and created_at > now() - interval '30 days';
    select u.id, u.tenant_id, t.name, u.name, u.role, u.password_hash is not null, s.by_link
    from login_session s join app_user u on u.id = s.user_id join tenant t on t.id = u.tenant_id
    where s.token_sha256 = hash and not u.disabled
      and s.seen_at > now() - interval '12 hours' and s.created_at > now() - interval '30 days';
end;

create function user_by_name(wanted text)
    returns table (id integer, tenant_id smallint, password_hash text)
    language sql stable security definer set search_path = public, pg_temp
begin atomic
    select u.id, u.tenant_id, u.password_hash from app_user u where u.name = wanted and not u.disabled;
end;

create function login_link_user(hash bytea) returns text
    language sql stable security definer set search_path = public, pg_temp
begin atomic
    select u.name from login_link l join app_user u on u.id = l.user_id
    where l.token_sha256 = hash and l.used_at is null and l.expires_at > now() and not u.disabled;
end;

-- Burns the link and opens the session in one step, so that it cannot be used twice.
create function login_with_link(link_hash bytea, session_hash bytea) returns boolean
    language plpgsql security definer set search_path = public, pg_temp as $$
declare who login_link;
begin
    update login_link l set used_at = now() from app_user u
        where l.token_sha256 = link_hash and l.used_at is null and l.expires_at > now()
          and u.id = l.user_id and not u.disabled
        returning l.* into who;
    if not found then return false; end if;
    insert into login_session (token_sha256, tenant_id, user_id, by_link)
        values (session_hash, who.tenant_id, who.user_id, true);
    return true;
end $$;

create function open_session(who integer, session_hash bytea) returns void
    language sql security definer set search_path = public, pg_temp
begin atomic
    insert into login_session (token_sha256, tenant_id, user_id)
        select session_hash, u.tenant_id, u.id from app_user u where u.id = who and not u.disabled;
end;

create function close_session(hash bytea) returns void
    language sql security definer set search_path = public, pg_temp
begin atomic
    delete from login_session where token_sha256 = hash;
end;

-- A new password ends every other session of its user.
create function set_password(who integer, new_hash text, keep_session bytea) returns void
    language sql security definer set search_path = public, pg_temp
begin atomic
    update app_user set password_hash = new_hash where id = who and not disabled;
    update login_session set by_link = false where token_sha256 = keep_session and user_id = who;
    delete from login_session where user_id = who and token_sha256 <> keep_session;
end;

revoke execute on function agent_by_token(bytea), user_by_session(bytea), user_by_name(text), login_link_user(bytea),
    login_with_link(bytea, bytea), open_session(integer, bytea), close_session(bytea), set_password(integer, text, bytea) from public;
grant execute on function agent_by_token(bytea), user_by_session(bytea), user_by_name(text), login_link_user(bytea),
    login_with_link(bytea, bytea), open_session(integer, bytea), close_session(bytea), set_password(integer, text, bytea) to ispvm;
