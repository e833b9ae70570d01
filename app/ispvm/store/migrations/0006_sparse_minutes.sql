-- A minute without a sample takes no place: the arrays of an hour are as long as it has minutes with samples.
alter table rollup_1m add column minutes smallint[];
update rollup_1m set minutes = array(select generate_series(0, 59)::smallint);
alter table rollup_1m alter column minutes set not null;
