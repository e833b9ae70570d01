-- Whoever came by a one-time link may set a password without knowing the old one; that session must be told apart.
alter table login_session add column by_link boolean not null default false;

create or replace function login_with_link(link_hash bytea, session_hash bytea) returns boolean
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

drop function user_by_session(bytea);
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
revoke execute on function user_by_session(bytea) from public;
grant execute on function user_by_session(bytea) to ispvm;

-- A new password ends every other session of its user.
create function set_password(who integer, new_hash text, keep_session bytea) returns void
    language sql security definer set search_path = public, pg_temp
begin atomic
    update app_user set password_hash = new_hash where id = who and not disabled;
    update login_session set by_link = false where token_sha256 = keep_session and user_id = who;
    delete from login_session where user_id = who and token_sha256 <> keep_session;
end;
revoke execute on function set_password(integer, text, bytea) from public;
grant execute on function set_password(integer, text, bytea) to ispvm;
revoke update (password_hash) on app_user from ispvm;
