-- GIN pages: the entry tree, posting trees of up to three levels, the pending list, and what VACUUM does to each.
-- Text that does not compress, about 32 bytes for each of `pieces`.
CREATE FUNCTION noise(number int, pieces int) RETURNS text IMMUTABLE LANGUAGE sql
  AS $$ SELECT string_agg(md5(number || '/' || piece), '') FROM generate_series(1, pieces) piece $$;
-- The entry tree without a pending list: new keys, keys that get a larger tuple in place of the old one, keys that
-- stand for nothing (no array, an empty one, a null in one). Splits of the root and of leaves.
CREATE TABLE tagged (id int, tags text[]) WITH (autovacuum_enabled = off);
CREATE INDEX tagged_tags ON tagged USING gin (tags) WITH (fastupdate = off);
INSERT INTO tagged SELECT i, ARRAY['k' || i % 300, md5((i * 7919 % 4001)::text)] FROM generate_series(1, 3000) i;
INSERT INTO tagged SELECT i, CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '{}' ELSE '{NULL, null}' END::text[] FROM generate_series(1, 300) i;
-- Several columns, other operator classes.
CREATE EXTENSION pg_trgm;
CREATE EXTENSION btree_gin;
CREATE TABLE documents (id int, words tsvector, data jsonb, title text) WITH (autovacuum_enabled = off);
CREATE INDEX documents_all ON documents USING gin (id, words, data jsonb_path_ops, title gin_trgm_ops) WITH (fastupdate = off);
INSERT INTO documents SELECT i, to_tsvector('simple', noise(i, 2) || ' common word' || i % 7), jsonb_build_object('n', i % 50, 'x', md5(i::text)), md5(i::text) FROM generate_series(1, 400) i;
-- Few keys on a page: inner pages that get downlinks, that split, and whose root splits.
CREATE TABLE wide (id int, tags text[]) WITH (autovacuum_enabled = off);
CREATE INDEX wide_tags ON wide USING gin (tags) WITH (fastupdate = off);
INSERT INTO wide SELECT i, ARRAY[noise(i * 7919 % 2003, 38)] FROM generate_series(1, 2002) i;
INSERT INTO wide SELECT i, ARRAY[lpad(i::text, 5, '0') || noise(i, 40)] FROM generate_series(1, 400) i;
-- Lists in the entry tree are vacuumed, down to none.
DELETE FROM tagged WHERE id % 3 = 0;
VACUUM (INDEX_CLEANUP ON) tagged;
DELETE FROM tagged;
VACUUM (INDEX_CLEANUP ON) tagged;
INSERT INTO tagged SELECT i, ARRAY['k' || i % 300] FROM generate_series(1, 900) i;
-- Posting trees made by insertion: TIDs added to the last list, new lists at the end, splits of the root and of the
-- last leaf.
CREATE TABLE hits (id int, k int[]) WITH (autovacuum_enabled = off);
CREATE INDEX hits_k ON hits USING gin (k) WITH (fastupdate = off);
INSERT INTO hits SELECT i, ARRAY[1, 100 + i % 3] FROM generate_series(1, 16000) i;
-- TIDs that VACUUM has freed come again in the middle of lists.
DELETE FROM hits WHERE id % 5 = 0;
VACUUM (INDEX_CLEANUP ON) hits;
INSERT INTO hits SELECT i, ARRAY[1, 100 + i % 3] FROM generate_series(1, 3000) i;
-- Lists that have become small are merged with their neighbours by the next insertion.
DELETE FROM hits WHERE id % 10 <> 1;
VACUUM (INDEX_CLEANUP ON) hits;
INSERT INTO hits SELECT i, ARRAY[1, 100 + i % 3] FROM generate_series(1, 3000) i;
-- A whole tree is emptied and filled again.
DELETE FROM hits;
VACUUM (INDEX_CLEANUP ON) hits;
INSERT INTO hits SELECT i, ARRAY[1, 100 + i % 3] FROM generate_series(1, 6000) i;
-- A tree of two levels from a build. Only the index's pages are worth their check images here.
SET wal_consistency_checking = gin;
CREATE TABLE ranges (id int, k int) WITH (autovacuum_enabled = off);
INSERT INTO ranges SELECT i, i % 4 FROM generate_series(1, 160000) i;
DELETE FROM ranges WHERE id % 1000 < 4;
VACUUM ranges;
CREATE INDEX ranges_k ON ranges USING gin ((ARRAY[k, 10])) WITH (fastupdate = on, gin_pending_list_limit = 4096);
-- Many TIDs at once, in the gaps of full leaves and behind them.
INSERT INTO ranges SELECT i, i % 4 FROM generate_series(200001, 202000) i;
SELECT gin_clean_pending_list('ranges_k') > 0;
-- Leaves in the middle are emptied: they leave their parent. Then at both edges, where they stay.
DELETE FROM ranges WHERE ctid BETWEEN '(130,0)' AND '(420,0)';
VACUUM (INDEX_CLEANUP ON) ranges;
DELETE FROM ranges WHERE ctid < '(100,0)' OR ctid > '(500,0)' AND id % 7 > 0;
VACUUM (INDEX_CLEANUP ON) ranges;
-- Deleted pages are taken again.
SELECT txid_current();
SELECT txid_current();
VACUUM (INDEX_CLEANUP ON) ranges;
INSERT INTO ranges SELECT i, i % 4 FROM generate_series(300001, 316000) i;
VACUUM ranges;
RESET wal_consistency_checking;
-- The pending list: its first page, more tuples on its last page, more pages behind it, a heap tuple that needs
-- several pages.
CREATE TABLE pending (id int, tags text[]) WITH (autovacuum_enabled = off);
CREATE INDEX pending_tags ON pending USING gin (tags) WITH (fastupdate = on, gin_pending_list_limit = 4096);
INSERT INTO pending SELECT i, ARRAY['k' || i % 10, md5(i::text)] FROM generate_series(1, 1500) i;
INSERT INTO pending SELECT i, array_agg(md5((i * 1000 + j)::text)) FROM generate_series(1, 6) i, generate_series(1, 700) j GROUP BY i;
INSERT INTO pending SELECT 1, ARRAY['last'];
SELECT gin_clean_pending_list('pending_tags') > 0;
SELECT gin_clean_pending_list('pending_tags') = 0;
-- The list is cleaned when it has grown too long, in several rounds for lack of memory; by VACUUM; by ANALYZE.
CREATE TABLE short_of_memory (id int, tags text[]) WITH (autovacuum_enabled = off);
CREATE INDEX short_of_memory_tags ON short_of_memory USING gin (tags) WITH (gin_pending_list_limit = 64);
SET work_mem = 64;
INSERT INTO short_of_memory SELECT i, ARRAY['k' || i % 10, md5(i::text), noise(i, 5)] FROM generate_series(1, 2500) i;
RESET work_mem;
VACUUM short_of_memory;
INSERT INTO short_of_memory SELECT i, ARRAY['k' || i % 10] FROM generate_series(1, 900) i;
DELETE FROM short_of_memory WHERE id % 2 = 0;
VACUUM (INDEX_CLEANUP ON) short_of_memory;
-- The pending list makes posting trees: TIDs that come all at once, more than a new root can hold.
INSERT INTO pending SELECT i, ARRAY['often'] FROM generate_series(1, 12000) i;
SELECT gin_clean_pending_list('pending_tags') > 0;
-- A posting tree of three levels from a build: 6.7 million TIDs of rows without columns. New TIDs split full leaves,
-- and with them an inner page that has no room. Then all leaves of an inner page go, and the inner page after them.
SET wal_consistency_checking = gin;
CREATE TABLE many () WITH (autovacuum_enabled = off);
COPY many FROM PROGRAM 'yes "" | head -n 6700000';
DELETE FROM many WHERE ctid IN (SELECT format('(%s,%s)', leaf + page, place)::tid FROM generate_series(40, 22000, 2500) leaf, generate_series(0, 3) page, generate_series(20, 140) place);
VACUUM many;
SET maintenance_work_mem = '256MB';
CREATE INDEX many_one ON many USING gin ((ARRAY[1])) WITH (fastupdate = off);
RESET maintenance_work_mem;
INSERT INTO many SELECT FROM generate_series(1, 4600);
DELETE FROM many WHERE ctid BETWEEN '(10000,0)' AND '(22500,0)';
VACUUM (INDEX_CLEANUP ON) many;
CREATE EXTENSION pageinspect;
SELECT 1 / count(*) AS an_inner_page_is_deleted FROM generate_series(1, pg_relation_size('many_one') / 8192 - 1) block
  WHERE (gin_page_opaque_info(get_raw_page('many_one', block))).flags = '{data,deleted}';
RESET wal_consistency_checking;
-- Images in place of changes: the first change of a page after a checkpoint.
ALTER SYSTEM SET full_page_writes = on;
SELECT pg_reload_conf();
SELECT pg_sleep(0.5);
CHECKPOINT;
INSERT INTO hits SELECT i, ARRAY[1, 100 + i % 3, i] FROM generate_series(1, 600) i;
INSERT INTO pending SELECT i, ARRAY['k' || i % 10, md5(i::text)] FROM generate_series(1, 300) i;
CHECKPOINT;
SET wal_compression = zstd;
DELETE FROM ranges WHERE id BETWEEN 100000 AND 160000;
VACUUM (INDEX_CLEANUP ON) ranges;
INSERT INTO wide SELECT i, ARRAY[noise(i, 39)] FROM generate_series(1, 200) i;
SELECT gin_clean_pending_list('pending_tags') > 0;
ALTER SYSTEM SET full_page_writes = off;
SELECT pg_reload_conf();
SELECT pg_sleep(0.5);
RESET wal_compression;
-- Builds, and an unlogged index's first pages.
REINDEX INDEX CONCURRENTLY tagged_tags;
CREATE INDEX CONCURRENTLY hits_again ON hits USING gin (k);
CREATE UNLOGGED TABLE unlogged_tags (tags text[]);
CREATE INDEX ON unlogged_tags USING gin (tags);
INSERT INTO unlogged_tags SELECT ARRAY[md5(i::text)] FROM generate_series(1, 100) i;
VACUUM FULL documents;
TRUNCATE tagged;
INSERT INTO tagged SELECT i, ARRAY['k' || i % 300] FROM generate_series(1, 100) i;
