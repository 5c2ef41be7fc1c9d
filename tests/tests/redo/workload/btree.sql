-- B-tree pages: splits to both sides and levels, deduplication, posting lists, deletion, reuse.
CREATE TABLE ascending (id bigint PRIMARY KEY) WITH (autovacuum_enabled = off);
INSERT INTO ascending SELECT generate_series(1, 30000);
CREATE TABLE descending (id bigint PRIMARY KEY) WITH (autovacuum_enabled = off);
INSERT INTO descending SELECT generate_series(20000, 1, -1);
CREATE TABLE scattered (id int, t text) WITH (autovacuum_enabled = off);
CREATE INDEX scattered_id ON scattered (id);
CREATE INDEX scattered_t ON scattered (t);
CREATE INDEX scattered_plain ON scattered (id) WITH (deduplicate_items = off);
INSERT INTO scattered SELECT (i * 7919) % 30011, md5((i % 900)::text) || repeat('k', i % 40) FROM generate_series(1, 10000) i;
-- Few distinct values: posting lists that merge, split and lose TIDs.
CREATE TABLE duplicates (k int, n int) WITH (autovacuum_enabled = off, fillfactor = 60);
CREATE INDEX duplicates_k ON duplicates (k);
INSERT INTO duplicates SELECT i % 12, i FROM generate_series(1, 20000) i;
DELETE FROM duplicates WHERE n % 3 = 0;
VACUUM duplicates;
INSERT INTO duplicates SELECT i % 12, i FROM generate_series(1, 20000) i;
INSERT INTO duplicates SELECT (random() * 5)::int, i FROM generate_series(1, 10000) i;
UPDATE duplicates SET k = k + 1 WHERE n % 10 = 0;
DELETE FROM duplicates WHERE n % 7 < 3;
VACUUM (INDEX_CLEANUP ON) duplicates;
DELETE FROM duplicates WHERE k = 4;
VACUUM (INDEX_CLEANUP ON) duplicates;
-- Wide keys: a tree of several levels, made by insertion, emptied from the middle and from the edges.
CREATE TABLE deep (k text) WITH (autovacuum_enabled = off);
ALTER TABLE deep ALTER k SET STORAGE PLAIN;
CREATE INDEX deep_k ON deep (k);
INSERT INTO deep SELECT lpad(((i * 7919) % 6007)::text, 1200, 'd') FROM generate_series(1, 6006) i;
DELETE FROM deep WHERE k > lpad('1000', 1200, 'd') AND k < lpad('5000', 1200, 'd');
VACUUM (INDEX_CLEANUP ON) deep;
DELETE FROM deep WHERE k < lpad('5500', 1200, 'd');
VACUUM (INDEX_CLEANUP ON) deep;
DELETE FROM deep;
VACUUM (INDEX_CLEANUP ON) deep;
-- Emptied pages are taken again.
DELETE FROM ascending WHERE id BETWEEN 2000 AND 28000;
VACUUM (INDEX_CLEANUP ON) ascending;
SELECT txid_current();
SELECT txid_current();
VACUUM (INDEX_CLEANUP ON) ascending;
VACUUM (INDEX_CLEANUP ON) deep;
INSERT INTO ascending SELECT generate_series(100001, 130000);
INSERT INTO deep SELECT lpad(((i * 7919) % 3001)::text, 1200, 'e') FROM generate_series(1, 3000) i;
-- Simple deletion: dead items that scans found, and bottom-up deletion of versions.
CREATE TABLE churn (id int PRIMARY KEY, a int, b int) WITH (autovacuum_enabled = off, fillfactor = 90);
CREATE INDEX churn_a ON churn (a);
CREATE INDEX churn_b ON churn (b);
INSERT INTO churn SELECT i, i, i % 10 FROM generate_series(1, 3000) i;
DO $$ BEGIN FOR i IN 1..12 LOOP UPDATE churn SET a = a + 1; COMMIT; END LOOP; END $$;
SET enable_seqscan = off; SET enable_bitmapscan = off;
DELETE FROM churn WHERE id % 2 = 0;
SELECT count(*) FROM (SELECT id FROM churn WHERE id > 0 ORDER BY id) q;
SELECT count(*) FROM (SELECT a FROM churn WHERE a > 0 ORDER BY a) q;
INSERT INTO churn SELECT i, i, i % 10 FROM generate_series(2, 3000, 2) i;
RESET enable_seqscan; RESET enable_bitmapscan;
-- Concurrent building, rebuilding, unique violations, included columns.
CREATE INDEX CONCURRENTLY scattered_two ON scattered (id, t) INCLUDE (t);
REINDEX INDEX CONCURRENTLY scattered_id;
REINDEX TABLE duplicates;
CREATE UNIQUE INDEX churn_unique ON churn (id) INCLUDE (a, b);
INSERT INTO churn VALUES (1, 1, 1) ON CONFLICT DO NOTHING;
CLUSTER churn USING churn_pkey;
VACUUM FULL duplicates;
