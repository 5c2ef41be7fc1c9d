-- Many records of each family of redo, for `cargo xtask bench redo-records`. Statements end with a line's end.

CREATE TABLE heap (id int, n int, filler text) WITH (fillfactor = 60);

-- Heap/INSERT
INSERT INTO heap SELECT g, 0, repeat('x', 60) FROM generate_series(1, 60000) g;

-- Btree/INSERT_LEAF, SPLIT_L, SPLIT_R and INSERT_UPPER come from keys in no order; DEDUP from equal ones
CREATE TABLE keys (k int, same int);

CREATE INDEX ON keys (k);

CREATE INDEX ON keys (same);

INSERT INTO keys SELECT (g * 7919::bigint) % 1000003, g % 50 FROM generate_series(1, 150000) g;

-- Heap2/MULTI_INSERT
CREATE TABLE copied (LIKE heap);

COPY copied FROM PROGRAM 'seq --format "%.0f,0,a row that is neither short nor long" 60000' WITH (FORMAT csv);

-- Heap/HOT_UPDATE, Heap2/PRUNE
UPDATE heap SET n = n + 1 WHERE id % 4 = 0;

UPDATE heap SET n = n + 1 WHERE id % 4 = 1;

UPDATE heap SET n = n + 1 WHERE id % 4 = 2;

UPDATE heap SET n = n + 1 WHERE id % 4 = 3;

-- Heap/LOCK
SELECT count(*) FROM (SELECT 1 FROM heap WHERE id % 3 = 0 FOR UPDATE) locked;

-- Heap/UPDATE, Heap/DELETE
CREATE INDEX ON copied (n);

UPDATE copied SET n = id WHERE id % 3 = 0;

DELETE FROM copied WHERE id % 3 = 1;

DELETE FROM keys WHERE k % 3 <> 0 OR same < 25;

-- Heap2/VACUUM, VISIBLE, FREEZE_PAGE; Btree/VACUUM, MARK_PAGE_HALFDEAD, UNLINK_PAGE
VACUUM (FREEZE) copied, keys;

-- Btree/REUSE_PAGE, and more splits
INSERT INTO keys SELECT (g * 104729::bigint) % 1000003, g % 50 FROM generate_series(1, 50000) g;

-- Transaction/COMMIT
DO $$ BEGIN FOR i IN 1..5000 LOOP UPDATE heap SET n = 0 WHERE ctid = '(0,1)'; INSERT INTO heap VALUES (i, i, 'y'); COMMIT; END LOOP; END $$;

-- Sequence/LOG
CREATE SEQUENCE numbers CACHE 1;

SELECT max(nextval('numbers')) FROM generate_series(1, 50000);

-- Hash
CREATE TABLE hashed (k int);

CREATE INDEX ON hashed USING hash (k);

INSERT INTO hashed SELECT g FROM generate_series(1, 100000) g;

DELETE FROM hashed WHERE k % 3 = 0;

VACUUM hashed;

-- Gin: into the entry tree and its posting trees, and through the list of pending entries
CREATE TABLE words (w text[]);

CREATE INDEX words_direct ON words USING gin (w) WITH (fastupdate = off);

CREATE INDEX words_pending ON words USING gin (w) WITH (fastupdate = on);

INSERT INTO words SELECT ARRAY[md5((g % 5000)::text), (g % 20)::text] FROM generate_series(1, 30000) g;

DELETE FROM words WHERE w[2]::int < 5;

VACUUM words;

-- Gist
CREATE TABLE points (p point);

CREATE INDEX ON points USING gist (p);

INSERT INTO points SELECT point((g * 7919::bigint) % 10007, (g * 104729::bigint) % 10009) FROM generate_series(1, 50000) g;

DELETE FROM points WHERE p[0]::int % 3 = 0;

VACUUM points;

-- SPGist
CREATE TABLE texts (t text);

CREATE INDEX ON texts USING spgist (t);

INSERT INTO texts SELECT md5(g::text) FROM generate_series(1, 50000) g;

DELETE FROM texts WHERE t < '4';

VACUUM texts;

-- BRIN
CREATE TABLE ranges (id int, filler text);

CREATE INDEX ON ranges USING brin (id) WITH (pages_per_range = 1, autosummarize = off);

INSERT INTO ranges SELECT g, repeat('x', 500) FROM generate_series(1, 30000) g;

VACUUM ranges;

UPDATE ranges SET id = -id WHERE id % 10 = 0;
