-- Whole pages of transaction state: commits, commit timestamps, multixacts; then their truncation.
CREATE TABLE tick (n int);
DO $$ BEGIN FOR i IN 1..36000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$;
UPDATE pg_database SET datallowconn = true;
