"""What `analytics.merge` does, as SQL for DuckDB: the statements of docs/analyst.md.

`{root}` and `{window}` are to be filled in with `str.format`; both come from the analyst,
never from data. Tests hold these against `aggregates()`.
"""

from typing import Final

MERGED: Final = """\
WITH parts AS (
  SELECT *, sum(sum) OVER one / nullif(sum(count) OVER one, 0) AS mu
  FROM read_parquet('{root}/aggregates/window={window}/*/*/*.parquet',
                    hive_partitioning = true, hive_types = {{'city': VARCHAR, 'date': DATE}})
  WINDOW one AS (PARTITION BY city, device, property, unit, start)
)
SELECT city, date, device, property, unit, start, any_value("end") AS "end",
       sum(count)::BIGINT AS count,
       sum(invalid)::BIGINT AS invalid,
       sum(sum) AS sum,
       min(min) AS min,
       max(max) AS max,
       any_value(mu) AS mean,
       -- parts without valid readings have no mean and add nothing
       coalesce(sum(m2 + count * (mean - mu) ** 2), 0) AS m2,
       sum(m2 + count * (mean - mu) ** 2) / nullif(sum(count), 0) AS variance,
       arg_min("first", row(first_time, part, source))
         FILTER (first_time IS NOT NULL) AS "first",
       min(first_time) AS first_time,
       arg_max("last", row(last_time, part, source))
         FILTER (last_time IS NOT NULL) AS "last",
       max(last_time) AS last_time,
       bit_or(slots) AS slots,
       -- n, the number of slots, is what every covered part says of itself
       CASE WHEN count(coverage) > 0 THEN
         bit_count(bit_or(slots)) / coalesce(
           max(round(bit_count(slots) / coverage)) FILTER (coverage > 0), 1)
       END AS coverage,
       bool_or(partial) AS partial,
       count(*) AS parts
FROM parts
GROUP BY city, date, device, property, unit, start
ORDER BY city, device, property, unit, start
"""
"""One row per series and window."""

DAYS: Final = """\
WITH parts AS (
  SELECT *, sum(sum) OVER one / nullif(sum(count) OVER one, 0) AS mu
  FROM read_parquet('{root}/aggregates/window={window}/*/*/*.parquet',
                    hive_partitioning = true, hive_types = {{'city': VARCHAR, 'date': DATE}})
  WINDOW one AS (PARTITION BY city, date, device, property, unit)
)
SELECT city, date, device, property, unit,
       sum(count)::BIGINT AS count,
       sum(invalid)::BIGINT AS invalid,
       min(min) AS min,
       max(max) AS max,
       any_value(mu) AS mean,
       sum(m2 + count * (mean - mu) ** 2) / nullif(sum(count), 0) AS variance,
       count(DISTINCT start) AS windows
FROM parts
GROUP BY city, date, device, property, unit
ORDER BY city, device, property, unit, date
"""
"""One row per series and local day, from any windows that do not overlap."""

READINGS: Final = """\
SELECT city, date, property,
       count(*) AS readings,
       -- what the aggregates count: valid, not a duplicate (2), not in conflict (4)
       count(*) FILTER (quality > 0 AND flags & 6 = 0) AS valid,
       avg(value) FILTER (quality > 0 AND flags & 6 = 0) AS mean
FROM read_parquet('{root}/readings/*/*/*.parquet',
                  hive_partitioning = true, hive_types = {{'city': VARCHAR, 'date': DATE}})
GROUP BY city, date, property
ORDER BY city, date, property
"""
"""How many readings each city has a day, and their mean."""
