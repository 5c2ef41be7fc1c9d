-- SP-GiST pages: chains of leaf tuples that grow, move and are divided; inner tuples that grow and are split.
SELECT setseed(0.75);
-- Points, in quadrants and by halves; root pages that are leaves, divided leaves, all points the same.
CREATE TABLE spots (id int, at point) WITH (autovacuum_enabled = off);
CREATE INDEX spots_quad ON spots USING spgist (at);
CREATE INDEX spots_kd ON spots USING spgist (at kd_point_ops);
INSERT INTO spots SELECT i, point(random() * 100, random() * 100) FROM generate_series(1, 6000) i;
INSERT INTO spots SELECT i, point(3, 3) FROM generate_series(6001, 7500) i;
-- Nulls have a tree of their own.
INSERT INTO spots SELECT i, NULL FROM generate_series(8001, 10500) i;
-- Boxes, polygons, ranges, addresses; included columns, some of them null.
CREATE TABLE shapes (id int, b box, p polygon, r int4range, n inet) WITH (autovacuum_enabled = off);
CREATE INDEX shapes_b ON shapes USING spgist (b) INCLUDE (id, n);
CREATE INDEX shapes_p ON shapes USING spgist (p);
CREATE INDEX shapes_r ON shapes USING spgist (r);
CREATE INDEX shapes_n ON shapes USING spgist (n);
INSERT INTO shapes SELECT i, CASE WHEN i % 4 > 0 THEN box(point(x, y), point(x + w, y + w)) END,
    polygon(box(point(x, y), point(x + w, y + w))), CASE i % 11 WHEN 0 THEN 'empty' WHEN 1 THEN NULL ELSE int4range(i % 500, i % 500 + i % 40 + 1) END,
    CASE WHEN i % 3 > 0 THEN ('192.168.' || i % 256 || '.' || i / 256)::inet ELSE set_masklen(('2001:db8::' || to_hex(i % 4000))::inet, 64 + i % 64) END
  FROM (SELECT i, random() * 500 AS x, random() * 500 AS y, random() * 20 AS w FROM generate_series(1, 5000) i) q;
-- Text: a radix tree. New first characters enlarge inner tuples, in place, or on another page when theirs is full.
CREATE TABLE words (id serial, w text) WITH (autovacuum_enabled = off);
CREATE INDEX words_w ON words USING spgist (w);
INSERT INTO words (w) SELECT md5(i::text) FROM generate_series(1, 5000) i;
INSERT INTO words (w) SELECT chr(65 + i % 57) || chr(65 + (i / 57) % 57) || chr(200 + i % 300) || md5(i::text) FROM generate_series(1, 6000) i;
-- Long common prefixes that later values leave halfway: inner tuples are split, on their page or onto another one.
INSERT INTO words (w) SELECT repeat('long common prefix ', 30) || i FROM generate_series(1, 600) i;
INSERT INTO words (w) SELECT left(repeat('long common prefix ', 30), i) || '~' || i FROM generate_series(1, 560, 3) i;
INSERT INTO words (w) SELECT left(repeat('long common prefix ', 30), i) || '#' || i FROM generate_series(540, 1, -7) i;
INSERT INTO words (w) SELECT chr(97 + i % 26) || repeat(chr(97 + i % 26), 100 + (i % 7) * 20) || md5(i::text) FROM generate_series(1, 2500) i;
INSERT INTO words (w) SELECT chr(97 + i % 26) || repeat(chr(97 + i % 26), i % 200) || '!' || i FROM generate_series(1, 2500) i;
-- A root whose only inner tuple is split, at once.
CREATE TABLE rooted (w text) WITH (autovacuum_enabled = off);
CREATE INDEX rooted_w ON rooted USING spgist (w);
INSERT INTO rooted SELECT repeat('root', 40) || i FROM generate_series(1, 300) i;
INSERT INTO rooted SELECT left(repeat('root', 40), 160 - i) || '-' || i FROM generate_series(1, 150) i;
-- Values longer than a page, up to three of them: inner tuples one below the other until the rest fits.
INSERT INTO words (w) SELECT md5(i::text) || repeat(md5((i % 3)::text), 250 + i % 5 * 125) FROM generate_series(1, 30) i;
-- The same value very often: tuples that are all the same, and what splits them.
INSERT INTO words (w) SELECT 'same' FROM generate_series(1, 1500);
INSERT INTO words (w) SELECT 'same' || i FROM generate_series(1, 300) i;
INSERT INTO words (w) SELECT NULL FROM generate_series(1, 2000);
-- Inner tuples that were made on their parent's page; then parents and children grow in turn, and move away from each
-- other. (None can move to its parent's page: SpGistGetBuffer does not get the lock on it a second time.)
CREATE TABLE grown (w text) WITH (autovacuum_enabled = off);
CREATE INDEX grown_w ON grown USING spgist (w);
INSERT INTO grown SELECT chr(65 + a) || chr(65 + b) || chr(65 + c) || md5((a * b * c * i)::text) || repeat('g', 200)
  FROM generate_series(1, 12) i, generate_series(1, 2) a, generate_series(1, 20) b, generate_series(1, 8) c;
INSERT INTO grown SELECT w FROM (
  SELECT step, chr(65 + a) || chr(40 + step) || 'second' AS w FROM generate_series(1, 80) step, generate_series(1, 2) a
  UNION ALL
  SELECT step, chr(65 + a) || chr(65 + b) || chr(40 + step) || 'third' FROM generate_series(1, 80) step, generate_series(1, 2) a, generate_series(1, 20) b
) q ORDER BY step, md5(w);
-- A tree of nulls with wide included columns: nodes that have no chain yet get a page.
CREATE TABLE wide_nulls (at point, pad text) WITH (autovacuum_enabled = off);
ALTER TABLE wide_nulls ALTER pad SET STORAGE PLAIN;
CREATE INDEX wide_nulls_at ON wide_nulls USING spgist (at) INCLUDE (pad);
INSERT INTO wide_nulls SELECT NULL, repeat('n', 1500 + i % 7 * 100) FROM generate_series(1, 300) i;
DELETE FROM wide_nulls WHERE length(pad) % 200 = 0;
VACUUM wide_nulls;
INSERT INTO wide_nulls SELECT NULL, repeat('m', 700 + i % 7 * 300) FROM generate_series(1, 300) i;
-- VACUUM: heads of chains, middles, ends, whole chains; roots that are leaves; redirections and placeholders.
CREATE TABLE few (at point) WITH (autovacuum_enabled = off);
CREATE INDEX few_at ON few USING spgist (at);
INSERT INTO few SELECT point(i, i) FROM generate_series(1, 60) i;
INSERT INTO few SELECT NULL FROM generate_series(1, 60) i;
DELETE FROM few WHERE at[0] = 7 OR at[0] = 8;
VACUUM few;
DELETE FROM few WHERE at[0] > 20 OR at IS NULL;
VACUUM few;
INSERT INTO few SELECT point(i, i) FROM generate_series(1, 100) i;
DELETE FROM few;
VACUUM few;
DELETE FROM spots WHERE id % 13 = 0;
VACUUM spots;
DELETE FROM spots WHERE id % 3 = 0 OR id BETWEEN 6001 AND 6500;
VACUUM spots;
DELETE FROM shapes WHERE id % 4 < 3;
VACUUM shapes;
DELETE FROM words WHERE w LIKE 'a%' OR w LIKE 'lo%' OR id % 5 = 0;
VACUUM words;
-- Chains whose only tuple is dead come to life again, where they are or on another page.
INSERT INTO spots SELECT i, point(random() * 100, random() * 100) FROM generate_series(20001, 26000) i;
INSERT INTO shapes SELECT i, box(point(x, x), point(x + 5, x + 9)), polygon(box(point(x, 1), point(x + 3, x + 3))), int4range(i % 300, i % 300 + 9), ('10.0.' || i % 200 || '.' || i % 100)::inet
  FROM (SELECT i, random() * 500 AS x FROM generate_series(10001, 14000) i) q;
INSERT INTO words (w) SELECT md5(i::text) FROM generate_series(1, 5000) i;
INSERT INTO words (w) SELECT 'a' || md5(i::text) || repeat('a', i % 300) FROM generate_series(1, 2000) i;
DELETE FROM words WHERE id % 4 > 0;
VACUUM words;
INSERT INTO words (w) SELECT md5(i::text) || repeat('z', i % 90) FROM generate_series(1, 6000) i;
-- Everything goes; the pages are taken again for other uses.
DELETE FROM spots;
DELETE FROM words;
VACUUM spots;
VACUUM words;
SELECT txid_current();
VACUUM spots;
VACUUM words;
INSERT INTO spots SELECT i, CASE WHEN i % 3 > 0 THEN point(random(), random()) END FROM generate_series(1, 4000) i;
INSERT INTO words (w) SELECT repeat(chr(97 + i % 26), i % 400) || i FROM generate_series(1, 3000) i;
INSERT INTO words (w) SELECT NULL FROM generate_series(1, 1500);
-- Builds and exclusion constraints.
CREATE INDEX spots_built ON spots USING spgist (at) WITH (fillfactor = 50);
CREATE INDEX CONCURRENTLY words_built ON words USING spgist (w) INCLUDE (id);
REINDEX INDEX CONCURRENTLY words_w;
INSERT INTO words (w) SELECT md5(i::text) FROM generate_series(1, 1500) i;
CREATE TABLE circles (r int4range, EXCLUDE USING spgist (r WITH &&)) WITH (autovacuum_enabled = off);
INSERT INTO circles SELECT int4range(i * 3, i * 3 + i % 5) FROM generate_series(1, 3000) i ON CONFLICT DO NOTHING;
CREATE UNLOGGED TABLE loose_words (w text);
CREATE INDEX loose_words_w ON loose_words USING spgist (w);
INSERT INTO loose_words SELECT md5(i::text) FROM generate_series(1, 1000) i;
ALTER TABLE loose_words SET LOGGED;
INSERT INTO loose_words SELECT md5(i::text) FROM generate_series(1001, 2000) i;
