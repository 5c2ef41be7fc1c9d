-- Hash index pages: buckets, their overflow pages, splits, squeezing, dead items, bitmaps of free pages.
-- In one session: a deletion names the first page of its bucket without a lock, and the image that is taken of it for the
-- check can hold an insertion that is logged later; a stock standby calls that inconsistent.
-- Few tuples a bucket: splits through all the phases of a splitpoint, with masks and splitpoints that change or not.
CREATE TABLE hashed (id int, t text) WITH (autovacuum_enabled = off);
CREATE INDEX hashed_id ON hashed USING hash (id) WITH (fillfactor = 10);
CREATE INDEX hashed_t ON hashed USING hash (t);
INSERT INTO hashed SELECT i, md5((i % 2000)::text) FROM generate_series(1, 28000) i;
-- Splits of buckets that have overflow pages, into buckets that need them.
CREATE TABLE lumpy (k int) WITH (autovacuum_enabled = off);
CREATE INDEX lumpy_k ON lumpy USING hash (k) WITH (fillfactor = 10);
INSERT INTO lumpy SELECT i % 3 FROM generate_series(1, 4000) i;
INSERT INTO lumpy SELECT i FROM generate_series(1, 3000) i;
-- One key, so that the chain of pages follows the order of n, 407 tuples a page. First every page is thinned out:
-- tuples move to the bucket's first page and to later ones, all of a page's at once or as many as there is room for.
CREATE TABLE chained (k int, n int) WITH (autovacuum_enabled = off);
CREATE INDEX chained_k ON chained USING hash (k);
INSERT INTO chained SELECT 7, i FROM generate_series(1, 6000) i;
DELETE FROM chained WHERE n % 5 < 3;
VACUUM (INDEX_CLEANUP ON) chained;
-- Pages that were freed are used again.
INSERT INTO chained SELECT 7, i FROM generate_series(6001, 9000) i;
-- Whole pages become empty, at the end, in the middle, next to the page that is written to.
TRUNCATE chained;
INSERT INTO chained SELECT 7, i FROM generate_series(1, 4070) i;
DELETE FROM chained WHERE n > 3700 OR n BETWEEN 1700 AND 2900 OR n BETWEEN 450 AND 500;
VACUUM (INDEX_CLEANUP ON) chained;
DELETE FROM chained WHERE n > 430;
VACUUM (INDEX_CLEANUP ON) chained;
DELETE FROM chained;
VACUUM (INDEX_CLEANUP ON) chained;
-- Empty pages behind the page that is written to, which is not the bucket's first one.
INSERT INTO chained SELECT 7, i FROM generate_series(1, 1900) i;
DELETE FROM chained WHERE n BETWEEN 600 AND 1850;
VACUUM (INDEX_CLEANUP ON) chained;
TRUNCATE chained;
-- Two chains that grew together: pages are freed behind the first free one, which the metapage then keeps.
INSERT INTO chained SELECT 7 + i % 2, i FROM generate_series(1, 8000) i;
DELETE FROM chained WHERE n > 2000;
VACUUM (INDEX_CLEANUP ON) chained;
INSERT INTO chained SELECT 7 + i % 2, i FROM generate_series(1, 3000) i;
-- Items that scans found dead: many and few, on first and overflow pages; an insertion without room deletes them.
CREATE TABLE killed (k int, n int) WITH (autovacuum_enabled = off);
CREATE INDEX killed_k ON killed USING hash (k);
INSERT INTO killed SELECT 1, i FROM generate_series(1, 1221) i;
SET enable_seqscan = off; SET enable_bitmapscan = off;
DELETE FROM killed WHERE n BETWEEN 100 AND 300 OR n IN (500, 1000, 1100);
SELECT count(*) FROM killed WHERE k = 1;
SELECT count(*) FROM killed WHERE k = 1;
INSERT INTO killed SELECT 1, i FROM generate_series(2001, 2500) i;
-- Vacuum clears the mark that there are dead items.
DELETE FROM killed WHERE n BETWEEN 1 AND 50 OR n BETWEEN 600 AND 610;
SELECT count(*) FROM killed WHERE k = 1;
VACUUM (INDEX_CLEANUP ON) killed;
RESET enable_seqscan; RESET enable_bitmapscan;
-- Removal of one, two and more tuples of a page.
DELETE FROM hashed WHERE id % 50 = 0;
VACUUM (INDEX_CLEANUP ON) hashed;
DELETE FROM hashed WHERE id % 3 = 0;
VACUUM (INDEX_CLEANUP ON) hashed;
-- Built from an existing table: more first buckets, in one phase and between two.
CREATE INDEX hashed_two ON hashed USING hash (id) WITH (fillfactor = 100);
CREATE INDEX hashed_many ON hashed USING hash (id) WITH (fillfactor = 10);
CREATE INDEX CONCURRENTLY hashed_beside ON hashed USING hash (t);
REINDEX INDEX CONCURRENTLY hashed_t;
VACUUM FULL lumpy;
-- The init fork of an unlogged table's index.
CREATE UNLOGGED TABLE hashed_loose (k int);
CREATE INDEX hashed_loose_k ON hashed_loose USING hash (k);
INSERT INTO hashed_loose SELECT generate_series(1, 1000);
ALTER TABLE hashed_loose SET LOGGED;
-- Pages that come as images after a checkpoint: of buckets that are split; of buckets that are squeezed, where the first
-- page has room for tuples of the last one because an insertion deleted dead items.
CREATE TABLE split_after (k int) WITH (autovacuum_enabled = off);
CREATE INDEX split_after_k ON split_after USING hash (k) WITH (fillfactor = 10);
INSERT INTO split_after SELECT i FROM generate_series(1, 3000) i;
CREATE TABLE squeezed_after (k int, n int) WITH (autovacuum_enabled = off);
CREATE INDEX squeezed_after_k ON squeezed_after USING hash (k);
INSERT INTO squeezed_after SELECT 1, i FROM generate_series(1, 1600) i;
SET enable_seqscan = off; SET enable_bitmapscan = off;
DELETE FROM squeezed_after WHERE n BETWEEN 100 AND 300;
SELECT count(*) FROM squeezed_after WHERE k = 1;
INSERT INTO squeezed_after VALUES (1, 2000);
RESET enable_seqscan; RESET enable_bitmapscan;
ALTER SYSTEM SET full_page_writes = on;
SELECT pg_reload_conf();
SELECT pg_sleep(0.5);
CHECKPOINT;
INSERT INTO split_after SELECT i FROM generate_series(3001, 3400) i;
DELETE FROM squeezed_after WHERE n = 900;
VACUUM (INDEX_CLEANUP ON) squeezed_after;
CHECKPOINT;
INSERT INTO lumpy SELECT 1 FROM generate_series(1, 1000) i;
DELETE FROM chained WHERE n % 3 = 0;
VACUUM (INDEX_CLEANUP ON) chained;
CHECKPOINT;
INSERT INTO chained SELECT 7, i FROM generate_series(1, 1500) i;
ALTER SYSTEM SET full_page_writes = off;
SELECT pg_reload_conf();
SELECT pg_sleep(0.5);
