-- What a chart of hours is drawn from without its samples: the percentile of every 2, 3, 4, 6 and 12 hours of the day, behind
-- one another (those of one hour and of the day are there already; everything else merges), and the moments to mark.
--
-- Null until the day is over, and in days that an earlier release packed: those are read from their samples. Empty when the
-- day has one value only.
alter table rollup_1d add column step_p95 real[];
-- As in sample_day.
alter table rollup_1d add column reset_at integer[];
alter table rollup_1d add column late integer[];
alter table rollup_1d alter step_p95 set storage main, alter reset_at set storage main, alter late set storage main;
