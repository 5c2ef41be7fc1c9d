-- Heap pages: every way to write, prune, vacuum and freeze a tuple.
SET wal_compression = pglz;
CREATE TABLE plain (id int PRIMARY KEY, k int, v text, w text) WITH (fillfactor = 80, autovacuum_enabled = off);
CREATE INDEX plain_k ON plain (k);
INSERT INTO plain SELECT i, i % 50, repeat('x', i % 97), NULL FROM generate_series(1, 4000) i;
-- In one block and to another one, with and without shared prefixes and suffixes, key columns or not.
UPDATE plain SET v = v || 'tail' WHERE id % 3 = 0;
UPDATE plain SET v = 'head' || v WHERE id % 7 = 0;
UPDATE plain SET k = k + 1 WHERE id % 5 = 0;
UPDATE plain SET id = id + 10000 WHERE id % 11 = 0;
UPDATE plain SET w = repeat('wide', 300) WHERE id % 13 = 0;
UPDATE plain SET w = NULL WHERE id % 26 = 0;
DELETE FROM plain WHERE id % 17 = 0;
-- HOT chains that reading prunes, down to redirects and dead line pointers.
CREATE TABLE hot (id int PRIMARY KEY, n int, pad text) WITH (fillfactor = 50, autovacuum_enabled = off);
INSERT INTO hot SELECT i, 0, repeat('p', 50) FROM generate_series(1, 300) i;
DO $$ BEGIN FOR i IN 1..40 LOOP UPDATE hot SET n = n + 1; COMMIT; END LOOP; END $$;
DELETE FROM hot WHERE id % 4 = 0;
SELECT sum(n) FROM hot;
-- Aborted work, subtransactions, more than a commit record's worth of them.
BEGIN; INSERT INTO plain SELECT i, 0, 'gone' FROM generate_series(20001, 20200) i; ROLLBACK;
BEGIN; SAVEPOINT a; INSERT INTO plain VALUES (30001, 1, 'a'); ROLLBACK TO a; INSERT INTO plain VALUES (30002, 1, 'b'); COMMIT;
DO $$ BEGIN FOR i IN 1..200 LOOP BEGIN INSERT INTO plain VALUES (40000 + i, i, 'sub'); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$;
-- Multi-insert: new pages, existing pages, frozen on arrival.
COPY (SELECT i, i % 10, repeat('c', i % 60), NULL::text FROM generate_series(50001, 52000) i) TO :'copy_file';
COPY plain FROM :'copy_file';
CREATE TABLE copied (LIKE plain);
COPY copied FROM :'copy_file';
TRUNCATE copied;
BEGIN; CREATE TABLE frozen (LIKE plain); COPY frozen FROM :'copy_file' WITH (FREEZE); COMMIT;
-- Speculative insertion, confirmed and given up; moves between partitions.
INSERT INTO plain SELECT i, 0, 'upsert' FROM generate_series(50001, 50100) i ON CONFLICT (id) DO UPDATE SET v = 'conflict';
INSERT INTO plain SELECT i, 0, 'upsert' FROM generate_series(60001, 60400) i ON CONFLICT (id) DO NOTHING;
CREATE TABLE parts (id int, v text) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE part2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
INSERT INTO parts SELECT i, 'p' FROM generate_series(0, 199) i;
UPDATE parts SET id = id + 100 WHERE id < 50;
-- TOAST: external, compressed, updated, deleted.
CREATE TABLE toasted (id int PRIMARY KEY, doc text, raw text);
ALTER TABLE toasted ALTER raw SET STORAGE EXTERNAL;
INSERT INTO toasted SELECT i, repeat(md5(i::text), 300), repeat(md5(i::text), 200) FROM generate_series(1, 60) i;
UPDATE toasted SET raw = raw || 'more' WHERE id % 2 = 0;
DELETE FROM toasted WHERE id % 3 = 0;
VACUUM toasted;
-- The map of what is visible: set, cleared by every kind of change, set again, frozen, cut.
VACUUM plain;
INSERT INTO plain VALUES (70001, 1, 'clears');
UPDATE plain SET v = 'clears' WHERE id = 1 OR id = 3990;
UPDATE plain SET w = repeat('elsewhere', 400) WHERE id = 2;
DELETE FROM plain WHERE id = 4;
VACUUM (FREEZE) plain;
BEGIN; SELECT id FROM plain WHERE id IN (5, 6, 8, 9) FOR UPDATE; COMMIT;
BEGIN; SELECT id FROM plain WHERE id IN (13, 14) FOR KEY SHARE; COMMIT;
COPY plain FROM PROGRAM 'for i in 80001 80002 80003; do printf "%s\t1\tcopy\t\\N\n" $i; done';
VACUUM (FREEZE) hot;
DELETE FROM plain WHERE id > 1500;
VACUUM plain;
INSERT INTO plain SELECT i, 1, 'again' FROM generate_series(90001, 91000) i;
VACUUM (FREEZE, INDEX_CLEANUP ON) plain;
TRUNCATE frozen;
-- A map of more than one page, whose tail a truncation clears.
CREATE TABLE long (v text) WITH (fillfactor = 10, autovacuum_enabled = off, toast_tuple_target = 8160);
ALTER TABLE long ALTER v SET STORAGE PLAIN;
INSERT INTO long SELECT repeat('l', 5000) FROM generate_series(1, 33500);
VACUUM (FREEZE) long;
UPDATE long SET v = repeat('m', 5000) WHERE ctid IN ('(10,1)', '(33000,1)');
DELETE FROM long WHERE ctid > '(32800,0)';
VACUUM long;
DELETE FROM long WHERE ctid > '(100,0)';
VACUUM long;
-- In-place updates of catalogs.
ANALYZE;
VACUUM ANALYZE pg_class;
