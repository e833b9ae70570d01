-- How often a kind of poll really comes: slower columns travel in fewer polls than their interval says.
alter table latest_poll add column period_s real;
