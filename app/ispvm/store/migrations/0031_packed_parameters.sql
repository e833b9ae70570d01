-- Arrays of arrays, which PostgreSQL does not have, as parameters: each element of packed_real[] is one real[].
-- A batch sends each column of all its polls as one parameter (docs/decisions/0008-insert-not-copy.md).
create type packed_real as (of real[]);
create type packed_bigint as (of bigint[]);
create type packed_smallint as (of smallint[]);
create type packed_boolean as (of boolean[]);
