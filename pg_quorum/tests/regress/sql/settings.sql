-- What the volume's durability depends on is held, and cannot be turned off.
SELECT name, setting, source FROM pg_settings
 WHERE name IN ('fsync', 'full_page_writes', 'synchronous_standby_names', 'wal_init_zero', 'wal_recycle', 'wal_sync_method')
 ORDER BY name;
ALTER SYSTEM SET fsync = off;
ALTER SYSTEM SET synchronous_standby_names = '';
ALTER SYSTEM SET wal_level = minimal;
ALTER SYSTEM SET wal_level = logical;
ALTER SYSTEM RESET wal_level;
ALTER SYSTEM SET archive_mode = on;
ALTER SYSTEM SET work_mem = '4MB';
ALTER SYSTEM RESET work_mem;
SET fsync = off;

-- A copy of files with holes would be silently broken.
SELECT pg_backup_start('copy');

-- Loading the library again does nothing.
LOAD 'pg_quorum';
