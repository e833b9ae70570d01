#!/bin/sh
# Usage: extension.sh PORT DATABASE LICENSE, as postgres. Creates the extension in DATABASE, updates it in every database that
# has it, and makes sure that the edition is the wanted one. Prints what it changed.
set -eu
port=$1 database=$2 license=$3

sql() {
    psql -X --quiet --no-align --tuples-only -v ON_ERROR_STOP=1 --host=/run/postgresql --port="$port" "$@" < /dev/null
}

# The library of the extension's old version may be gone already: these sessions do not load it.
unloaded() {
    PGOPTIONS='-c timescaledb.disable_load=on' sql "$@"
}

installed=$(unloaded -d postgres -c "select default_version from pg_available_extensions where name = 'timescaledb'")
for name in $(unloaded -d postgres -c "select datname from pg_database where datallowconn order by datname"); do
    version=$(unloaded -d "$name" -c "select extversion from pg_extension where extname = 'timescaledb'")
    if [ -z "$version" ] && [ "$name" = "$database" ]; then
        sql -d "$name" -c 'create extension timescaledb'
        echo "$name: created $installed"
    elif [ -n "$version" ] && [ "$version" != "$installed" ]; then
        # must be the first command of its session
        sql -d "$name" -c 'alter extension timescaledb update'
        echo "$name: updated $version to $installed"
    fi
done

actual=$(sql -d "$database" -c 'show timescaledb.license')
if [ "$actual" != "$license" ]; then
    echo "timescaledb.license is $actual and should be $license: which package is installed?" >&2
    exit 1
fi
