//! What the database itself counts: how much it reads, what it caches, how large the store's tables are.
//!
//! In: nothing. Out: one JSON object of the shape that dashboards of Queen read, with what the database's
//! own statistics say: of the database that the store is in, of the store's tables and indexes, and of
//! its servers' sessions. What others have in the same database is not told. Asks over the
//! connection for upkeep. Called by `wire`.

use std::sync::Arc;
use std::time::Duration;

use super::PostgresLog;
use super::error::words;
use super::shared::Shared;

/// How long the database may take to add up its figures.
const PATIENCE: Duration = Duration::from_secs(5);

/// Parameter: the schema. Of tables and indexes the hundred largest are told: pieces of the log come and
/// go, and there may be many. What a buffer holds, only an extension can tell.
const FIGURES: &str = "
WITH mine AS (
    SELECT s.*, io.heap_blks_read, io.heap_blks_hit,
           pg_total_relation_size(s.relid) AS total, pg_table_size(s.relid) AS own,
           pg_indexes_size(s.relid) AS indexes
      FROM pg_stat_user_tables s JOIN pg_statio_user_tables io USING (relid)
     WHERE s.schemaname = $1
     ORDER BY pg_total_relation_size(s.relid) DESC LIMIT 100
), mine_indexes AS (
    SELECT * FROM pg_statio_user_indexes WHERE schemaname = $1
     ORDER BY idx_blks_read + idx_blks_hit DESC LIMIT 100
), whole AS (
    SELECT coalesce(sum(heap_blks_read), 0) AS read, coalesce(sum(heap_blks_hit), 0) AS hit,
           coalesce(sum(idx_blks_read), 0) AS idx_read, coalesce(sum(idx_blks_hit), 0) AS idx_hit
      FROM pg_statio_user_tables WHERE schemaname = $1
)
SELECT jsonb_build_object(
    'database', current_database(),
    'databaseCache', (SELECT jsonb_build_object('database', datname, 'diskReads', blks_read,
            'cacheHits', blks_hit,
            'cacheHitRatio', round(100.0 * blks_hit / nullif(blks_hit + blks_read, 0), 2))
        FROM pg_stat_database WHERE datname = current_database()),
    'tableCache', (SELECT coalesce(jsonb_agg(jsonb_build_object('schema', schemaname,
            'table', relname, 'diskReads', heap_blks_read, 'cacheHits', heap_blks_hit,
            'cacheHitRatio', round(100.0 * heap_blks_hit / nullif(heap_blks_hit + heap_blks_read, 0), 2))
            ORDER BY heap_blks_read + heap_blks_hit DESC), '[]') FROM mine),
    'indexCache', (SELECT coalesce(jsonb_agg(jsonb_build_object('schema', schemaname,
            'table', relname, 'index', indexrelname, 'diskReads', idx_blks_read,
            'cacheHits', idx_blks_hit,
            'cacheHitRatio', round(100.0 * idx_blks_hit / nullif(idx_blks_hit + idx_blks_read, 0), 2))),
            '[]') FROM mine_indexes),
    'cacheSummary', (SELECT jsonb_build_object(
            'tables', jsonb_build_object('diskReads', read, 'cacheHits', hit,
                'hitRatio', round(100.0 * hit / nullif(hit + read, 0), 2)),
            'indexes', jsonb_build_object('diskReads', idx_read, 'cacheHits', idx_hit,
                'hitRatio', round(100.0 * idx_hit / nullif(idx_hit + idx_read, 0), 2)))
        FROM whole),
    'deadTuples', (SELECT coalesce(jsonb_agg(jsonb_build_object('schema', schemaname,
            'table', relname, 'deadTuples', n_dead_tup, 'liveTuples', n_live_tup,
            'deadPercentage', round(100.0 * n_dead_tup / nullif(n_dead_tup + n_live_tup, 0), 2),
            'lastVacuum', last_vacuum, 'lastAutovacuum', last_autovacuum)
            ORDER BY n_dead_tup DESC), '[]') FROM mine WHERE n_dead_tup > 0),
    'hotUpdates', (SELECT coalesce(jsonb_agg(jsonb_build_object('schema', schemaname,
            'table', relname, 'totalUpdates', n_tup_upd, 'hotUpdates', n_tup_hot_upd,
            'hotUpdatePercentage', round(100.0 * n_tup_hot_upd / nullif(n_tup_upd, 0), 2))
            ORDER BY n_tup_upd DESC), '[]') FROM mine WHERE n_tup_upd > 0),
    'activeQueries', (SELECT coalesce(jsonb_agg(jsonb_build_object('pid', pid,
            'duration', round(extract(epoch FROM clock_timestamp() - query_start)::numeric, 3),
            'state', state, 'query', left(query, 200), 'waitEventType', wait_event_type,
            'waitEvent', wait_event)), '[]')
        FROM pg_stat_activity
        WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
          AND state <> 'idle' AND split_part(application_name, ' ', 1)
            = split_part(current_setting('application_name'), ' ', 1)),
    'autovacuumStatus', (SELECT coalesce(jsonb_agg(jsonb_build_object('table', relname,
            'lastAutovacuum', last_autovacuum, 'deadTuples', n_dead_tup,
            'autovacuumCount', autovacuum_count, 'autoanalyzeCount', autoanalyze_count)
            ORDER BY n_dead_tup DESC), '[]') FROM mine),
    'bufferConfig', jsonb_build_object('sharedBuffers', current_setting('shared_buffers'),
        'sharedBuffersSize', pg_size_pretty(pg_size_bytes(current_setting('shared_buffers')))),
    'bufferUsage', '[]'::jsonb,
    'tableSizes', (SELECT coalesce(jsonb_agg(jsonb_build_object('table', relname,
            'totalSize', pg_size_pretty(total), 'totalSizeBytes', total,
            'tableSize', pg_size_pretty(own), 'tableSizeBytes', own,
            'indexSize', pg_size_pretty(indexes), 'indexSizeBytes', indexes)
            ORDER BY total DESC), '[]') FROM mine)
)::text";

/// The database's own figures.
pub struct DatabaseFigures {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for DatabaseFigures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseFigures").finish_non_exhaustive()
    }
}

impl PostgresLog {
    /// The figures of its database.
    #[must_use]
    pub fn figures(&self) -> DatabaseFigures {
        DatabaseFigures { shared: Arc::clone(&self.shared) }
    }
}

impl DatabaseFigures {
    /// The figures of now: the text of a JSON object. Waits for the database, for five seconds at most;
    /// dropping the future is harmless.
    ///
    /// # Errors
    /// Why there are none, in words.
    pub async fn read(&self) -> Result<String, String> {
        let session = self.shared.upkeep.session()?;
        let schema = self.shared.config.schema.as_str();
        let asking = async { session.client.query_one(FIGURES, &[&schema]).await };
        match self.shared.within(PATIENCE, asking).await {
            Ok(Ok(row)) => row.try_get(0).map_err(|error| words(&error)),
            Ok(Err(error)) => Err(words(&error)),
            Err(_late) => Err("the database took too long to add them up".to_owned()),
        }
    }
}
