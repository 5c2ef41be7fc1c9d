-- GiST pages: splits in two and in many, of leaves, inner pages and roots, deletion, reuse.
SELECT setseed(0.25);
-- noise() and pg_trgm are there from gin.sql.
CREATE EXTENSION btree_gist;
-- Insertion one by one: items appended, downlinks replaced in place, splits whose downlinks come later.
CREATE TABLE places (id int, at point, area box) WITH (autovacuum_enabled = off);
CREATE INDEX places_at ON places USING gist (at) INCLUDE (id);
CREATE INDEX places_area ON places USING gist (area) WITH (fillfactor = 60);
INSERT INTO places SELECT i, point(x, y), box(point(x, y), point(x + 1, y + 1))
  FROM (SELECT i, random() * 1000 AS x, random() * 1000 AS y FROM generate_series(1, 12000) i) q;
-- Large keys: a tree of four levels, so that a new root and inner pages come with the end of a split below.
CREATE TABLE signatures (id int, t text) WITH (autovacuum_enabled = off);
CREATE INDEX signatures_t ON signatures USING gist (t gist_trgm_ops (siglen = 2000));
INSERT INTO signatures SELECT i, md5(i::text) || md5((i * 31)::text) FROM generate_series(1, 500) i;
-- Keys of very different sizes: pages of many small keys and, last in order, a few large ones; half of them does not fit
-- on a page, so that it is split again.
CREATE TABLE sizes (k text) WITH (autovacuum_enabled = off);
ALTER TABLE sizes ALTER k SET STORAGE PLAIN;
CREATE INDEX sizes_k ON sizes USING gist (k);
INSERT INTO sizes SELECT md5(i::text) || 'a' || j FROM generate_series(1, 80) i, generate_series(1, 40) j;
INSERT INTO sizes SELECT md5(i::text) || 'z' || j || noise(i * j, 25) FROM generate_series(1, 12) j, generate_series(1, 80) i;
-- Null keys, several columns, no rows for a while.
CREATE TABLE columns (a int, b inet, c numrange, d timestamptz) WITH (autovacuum_enabled = off);
CREATE INDEX columns_all ON columns USING gist (a, b inet_ops, c, d);
INSERT INTO columns SELECT nullif(i % 50, 7), ('10.' || i % 4 || '.' || i % 256 || '.' || i / 256)::inet,
    CASE WHEN i % 5 = 0 THEN NULL ELSE numrange(i % 1000, i % 1000 + i % 17) END, 'epoch'::timestamptz + i * interval '1 hour'
  FROM generate_series(1, 6000) i;
-- Exclusion constraints, kept and violated.
CREATE TABLE bookings (room int, during tsrange, EXCLUDE USING gist (room WITH =, during WITH &&)) WITH (autovacuum_enabled = off);
INSERT INTO bookings SELECT i % 20, tsrange('2020-01-01'::timestamp + i * interval '1 hour', '2020-01-01'::timestamp + (i + 1) * interval '1 hour')
  FROM generate_series(1, 3000) i;
INSERT INTO bookings SELECT i % 20, tsrange('2020-01-01'::timestamp + i * interval '30 min', '2020-01-01'::timestamp + (i + 1) * interval '30 min')
  FROM generate_series(1, 8000) i ON CONFLICT DO NOTHING;
-- VACUUM takes a few items of a page, many, all; empty pages go, but not the last one under a parent.
DELETE FROM places WHERE id % 211 = 0;
VACUUM places;
DELETE FROM places WHERE id % 3 = 0;
VACUUM places;
DELETE FROM places WHERE at[0] BETWEEN 200 AND 800;
VACUUM places;
DELETE FROM signatures WHERE id % 10 > 0;
VACUUM signatures;
DELETE FROM sizes WHERE k > '4';
VACUUM sizes;
DELETE FROM columns;
VACUUM columns;
-- Deleted pages are taken again, once no transaction can see them.
SELECT txid_current();
SELECT txid_current();
VACUUM places;
VACUUM signatures;
VACUUM sizes;
VACUUM columns;
INSERT INTO places SELECT i, point(x, y), box(point(x, y), point(x + 1, y + 1))
  FROM (SELECT i, 200 + random() * 600 AS x, random() * 1000 AS y FROM generate_series(20001, 28000) i) q;
INSERT INTO signatures SELECT i, md5(i::text) || md5((i * 37)::text) FROM generate_series(1001, 1250) i;
INSERT INTO sizes SELECT md5(i::text) || repeat('r', i % 700) FROM generate_series(10001, 11500) i;
INSERT INTO columns SELECT i % 50, NULL, numrange(i, i + 1), NULL FROM generate_series(1, 3000) i;
-- Items that scans found dead make room on a full page. Redo of that record sets a flag (F_TUPLES_DELETED) that its
-- writer does not set and gist_mask does not mask: VACUUM sets it on every page first, so that images can be compared.
SET enable_seqscan = off;
SET enable_bitmapscan = off;
CREATE TABLE churn_points (id int, at point) WITH (autovacuum_enabled = off);
CREATE INDEX churn_points_at ON churn_points USING gist (at);
INSERT INTO churn_points SELECT i, point(random() * 100, random() * 100) FROM generate_series(1, 6000) i;
DELETE FROM churn_points WHERE id % 2 = 0;
VACUUM churn_points;
DELETE FROM churn_points WHERE id % 3 = 0;
SELECT count(*) FROM (SELECT id FROM churn_points WHERE at <@ box '(100,100),(0,0)') q;
INSERT INTO churn_points SELECT i, point(random() * 100, random() * 100) FROM generate_series(6001, 11000) i;
-- The same on pages without the flag: PostgreSQL itself finds its pages inconsistent then, so there are no images, and
-- only the standby's files tell.
SET wal_consistency_checking = '';
CREATE TABLE churn_unchecked (id int, at point) WITH (autovacuum_enabled = off);
CREATE INDEX churn_unchecked_at ON churn_unchecked USING gist (at);
INSERT INTO churn_unchecked SELECT i, point(random() * 100, random() * 100) FROM generate_series(1, 3000) i;
DO $$ BEGIN
  FOR round IN 1..4 LOOP
    DELETE FROM churn_unchecked WHERE id % 3 = round % 3;
    COMMIT;
    PERFORM count(*) FROM (SELECT id FROM churn_unchecked WHERE at <@ box '(100,100),(0,0)') q;
    COMMIT;
    INSERT INTO churn_unchecked SELECT i, point(random() * 100, random() * 100) FROM generate_series(1, 1000) i;
    COMMIT;
  END LOOP;
END $$;
RESET wal_consistency_checking;
RESET enable_seqscan;
RESET enable_bitmapscan;
-- Builds: sorted, buffered, neither; concurrent ones; unlogged and logged again.
CREATE INDEX places_sorted ON places USING gist (at);
CREATE INDEX places_buffered ON places USING gist (at) WITH (buffering = on, fillfactor = 50);
CREATE INDEX places_plain ON places USING gist (area) WITH (buffering = off);
CREATE INDEX CONCURRENTLY places_later ON places USING gist (at, area);
REINDEX INDEX CONCURRENTLY places_area;
INSERT INTO places SELECT i, point(i, i), box(point(i, i), point(i + 2, i + 2)) FROM generate_series(30001, 32000) i;
CREATE UNLOGGED TABLE loose_places (at point);
CREATE INDEX loose_places_at ON loose_places USING gist (at);
INSERT INTO loose_places SELECT point(random(), random()) FROM generate_series(1, 2000);
ALTER TABLE loose_places SET LOGGED;
INSERT INTO loose_places SELECT point(random(), random()) FROM generate_series(1, 2000);
CREATE TEMPORARY TABLE passing_places (at point);
CREATE INDEX passing_places_at ON passing_places USING gist (at);
INSERT INTO passing_places SELECT point(random(), random()) FROM generate_series(1, 500);
CLUSTER places USING places_at;
INSERT INTO places SELECT i, point(i, 0), box(point(i, 0), point(i + 2, 2)) FROM generate_series(40001, 40500) i;
