-- What the agent tells of its own work: batches that this server will never take, and what polling costs each router.
alter table agent add column refused_batches integer not null default 0;
grant update (refused_batches) on agent to ispvm;

alter table agent_router
    add column ms_per_minute real,
    add column bytes_per_minute bigint,
    add column slowed text not null default '';  -- why slower tiers wait; empty when none does
