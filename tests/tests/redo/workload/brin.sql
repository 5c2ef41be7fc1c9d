-- BRIN pages: the metapage, the range map, tuples of fixed and of changing size.
-- One heap page a range, one row a heap page: a range map page covers 1360 of them. When it grows, it takes the place of
-- a page with tuples, which move to others, existing and new.
CREATE TABLE sparse (id int, pad text) WITH (autovacuum_enabled = off);
ALTER TABLE sparse ALTER pad SET STORAGE PLAIN;
CREATE INDEX sparse_id ON sparse USING brin (id) WITH (pages_per_range = 1);
INSERT INTO sparse SELECT i, repeat('s', 5000) FROM generate_series(1, 1300) i;
SELECT brin_summarize_new_values('sparse_id');
INSERT INTO sparse SELECT i, repeat('s', 5000) FROM generate_series(1301, 3000) i;
SELECT brin_summarize_new_values('sparse_id');
-- Ranges without a summary: the last of a page, others; their line pointers stay or go. Summed up again.
SELECT brin_desummarize_range('sparse_id', i) FROM generate_series(2999, 2700, -7) i;
SELECT brin_desummarize_range('sparse_id', i) FROM generate_series(0, 1500, 5) i;
SELECT brin_summarize_range('sparse_id', 2999);
SELECT brin_summarize_new_values('sparse_id');
-- Built from an existing table; a range map that grows over several pages at once, and one with tuples as wide as a page.
CREATE INDEX sparse_built ON sparse USING brin (id) WITH (pages_per_range = 1);
CREATE INDEX sparse_wide ON sparse USING brin (id, pad) WITH (pages_per_range = 2);
SELECT brin_desummarize_range('sparse_wide', i) FROM generate_series(0, 3000, 300) i;
VACUUM sparse;
-- Changes in place, of tuples of one size.
UPDATE sparse SET id = id + 100000 WHERE id % 100 = 0;
INSERT INTO sparse SELECT -i, 'small' FROM generate_series(1, 500) i;
-- Tuples that grow and shrink: in place, with others moved aside; to another page, to a new one.
CREATE TABLE growing (id int, t text) WITH (autovacuum_enabled = off, fillfactor = 20);
CREATE INDEX growing_t ON growing USING brin (t) WITH (pages_per_range = 1);
CREATE INDEX growing_both ON growing USING brin (id, t) WITH (pages_per_range = 3);
INSERT INTO growing SELECT i, chr(97 + i % 26) FROM generate_series(1, 3000) i;
SELECT brin_summarize_new_values('growing_t');
SELECT brin_summarize_new_values('growing_both');
UPDATE growing SET t = '!' || repeat(md5(id::text), 1 + id % 20) WHERE id % 7 = 0;
UPDATE growing SET t = '~' || repeat(md5(id::text), 1 + id % 30) WHERE id % 11 = 0;
UPDATE growing SET t = '~~' || (SELECT string_agg(md5((id * j)::text), '') FROM generate_series(1, 1 + id % 40) j) WHERE id % 13 = 0;
VACUUM growing;
DELETE FROM growing WHERE length(t) > 1;
VACUUM growing;
SELECT brin_desummarize_range('growing_t', i) FROM generate_series(0, 200) i WHERE i % 3 > 0;
SELECT brin_summarize_new_values('growing_t');
-- The other operator classes, nulls, deletion of everything.
CREATE TABLE classes (a int, b inet, c text, d timestamptz) WITH (autovacuum_enabled = off);
CREATE INDEX classes_all ON classes USING brin (a int4_minmax_multi_ops, b inet_inclusion_ops, c text_bloom_ops, d timestamptz_minmax_ops)
  WITH (pages_per_range = 4, autosummarize = off);
INSERT INTO classes SELECT (i * 7919) % 100003, '10.0.0.0'::inet + i, md5(i::text), '2020-01-01'::timestamptz + i * interval '1 hour' FROM generate_series(1, 5000) i;
INSERT INTO classes SELECT NULL, NULL, NULL, NULL FROM generate_series(1, 500) i;
SELECT brin_summarize_new_values('classes_all');
INSERT INTO classes SELECT i, '192.168.0.0'::inet + i, 'late' || i, NULL FROM generate_series(1, 2000) i;
VACUUM classes;
UPDATE classes SET a = a + 1000000 WHERE a % 40 = 0;
DELETE FROM classes;
VACUUM classes;
REINDEX INDEX CONCURRENTLY classes_all;
CREATE UNLOGGED TABLE sparse_loose (id int);
CREATE INDEX sparse_loose_id ON sparse_loose USING brin (id);
INSERT INTO sparse_loose SELECT generate_series(1, 1000);
-- Pages that come as images after a checkpoint. The mark on a page that is about to be vacated gets into one of them.
ALTER SYSTEM SET full_page_writes = on;
SELECT pg_reload_conf();
SELECT pg_sleep(0.5);
CHECKPOINT;
SELECT brin_desummarize_range('sparse_built', i) FROM generate_series(0, 2900, 100) i;
SELECT brin_summarize_new_values('sparse_built');
CHECKPOINT;
INSERT INTO sparse SELECT i, repeat('s', 5000) FROM generate_series(3001, 4400) i;
SELECT brin_summarize_new_values('sparse_id');
UPDATE growing SET t = repeat(md5(id::text), 1 + id % 20) WHERE id % 7 = 1;
CHECKPOINT;
SELECT brin_summarize_range('sparse_built', 4200);
ALTER SYSTEM SET full_page_writes = off;
SELECT pg_reload_conf();
SELECT pg_sleep(0.5);
