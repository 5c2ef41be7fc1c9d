-- Commands over a whole database go past the storage manager.
CREATE DATABASE regress_quorum_copy STRATEGY file_copy;
\connect regress_quorum_copy
CREATE TABLE kept AS SELECT g AS a FROM generate_series(1, 10000) g;
CREATE SEQUENCE counted;
SELECT nextval('counted');
SELECT count(*), sum(a) FROM kept;
\connect regression
SET allow_in_place_tablespaces = true;
CREATE TABLESPACE regress_quorum_space LOCATION '';
ALTER DATABASE regress_quorum_copy SET TABLESPACE regress_quorum_space;
\connect regress_quorum_copy
SELECT count(*), sum(a), nextval('counted') FROM kept;
INSERT INTO kept SELECT generate_series(10001, 12000);
CHECKPOINT;
\connect regression
ALTER DATABASE regress_quorum_copy SET TABLESPACE pg_default;
\connect regress_quorum_copy
SELECT count(*), sum(a), nextval('counted') FROM kept;
\connect regression
DROP DATABASE regress_quorum_copy;
DROP TABLESPACE regress_quorum_space;
