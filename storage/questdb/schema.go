package questdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// errSchema says that a table of our name is there and is not ours.
var errSchema = errors.New("not a table of ours")

// ensureSchema makes what tables are missing and checks the one everything rests on. created says
// that telemetry was not there: then QuestDB has none of the rows, whatever the cursors say.
//
// A device's symbol capacity is a start; QuestDB grows it.
func (w *Writer) ensureSchema(ctx context.Context) (created bool, err error) {
	_, err = w.db.query(ctx, "SHOW COLUMNS FROM telemetry")
	created = errors.Is(err, errNoTable)
	if err != nil && !created {
		return false, fmt.Errorf("look for the tables: %w", err)
	}
	if created {
		// First, so that no other node finds the tables and believes the cursors.
		if err := w.cursors.Reset(ctx); err != nil {
			return false, err
		}
	}
	end := ") TIMESTAMP(ts) PARTITION BY " + w.cfg.PartitionBy + " WAL DEDUP UPSERT KEYS"
	ddl := []string{
		`CREATE TABLE IF NOT EXISTS metric_columns (metric SYMBOL, "column" SYMBOL)`,
		`CREATE TABLE IF NOT EXISTS telemetry_long (ts TIMESTAMP_NS, device SYMBOL CAPACITY 65536, boot LONG, seq LONG,
			metric SYMBOL, value DOUBLE, z DOUBLE` + end + `(ts, device, boot, seq, metric)`,
		`CREATE TABLE IF NOT EXISTS alerts (ts TIMESTAMP_NS, device SYMBOL CAPACITY 65536, rule SYMBOL, severity SYMBOL,
			state SYMBOL, alert_id VARCHAR, value DOUBLE, score DOUBLE` + end + `(ts, alert_id, state)`,
		// Last, so that created is still seen if this is cut short.
		`CREATE TABLE IF NOT EXISTS telemetry (ts TIMESTAMP_NS, device SYMBOL CAPACITY 65536, boot LONG, seq LONG,
			late BOOLEAN` + end + `(ts, device, boot, seq)`,
	}
	if w.cfg.TTL > 0 {
		for _, table := range []string{"telemetry", "telemetry_long", "alerts"} {
			ddl = append(ddl, fmt.Sprintf("ALTER TABLE %s SET TTL %d HOURS", table, w.cfg.TTL/time.Hour))
		}
	}
	for _, stmt := range ddl {
		if err := w.db.exec(ctx, stmt); err != nil {
			return false, fmt.Errorf("create tables: %w", err)
		}
	}
	return created, w.checkTelemetry(ctx)
}

// resume wakes tables whose log QuestDB stopped applying (a full disk does that): it takes rows for
// them and shows none, until it is told to go on.
func (w *Writer) resume(ctx context.Context) error {
	rows, err := w.db.query(ctx, "SELECT name FROM wal_tables() WHERE suspended AND name IN ('telemetry', 'telemetry_long', 'alerts')")
	if err != nil {
		return fmt.Errorf("look for suspended tables: %w", err)
	}
	for _, r := range rows {
		name, _ := r[0].(string)
		w.logger.Warn("questdb had suspended a table, resuming it", "table", name)
		if err := w.db.exec(ctx, "ALTER TABLE "+name+" RESUME WAL"); err != nil {
			return fmt.Errorf("resume table %s: %w", name, err)
		}
	}
	return nil
}

// checkTelemetry refuses a table telemetry that would round times or keep rows twice. QuestDB has one
// of that name about itself unless it is told not to.
func (w *Writer) checkTelemetry(ctx context.Context) error {
	rows, err := w.db.query(ctx, `SELECT "column", type, upsertKey FROM (SHOW COLUMNS FROM telemetry)`)
	if err != nil {
		return fmt.Errorf("check the tables: %w", err)
	}
	var keys []string
	nanos := false
	for _, r := range rows {
		name, _ := r[0].(string)
		if key, _ := r[2].(bool); key {
			keys = append(keys, name)
		}
		nanos = nanos || name == "ts" && r[1] == "TIMESTAMP_NS"
	}
	slices.Sort(keys)
	if got := strings.Join(keys, ","); got != "boot,device,seq,ts" || !nanos {
		return fmt.Errorf("table telemetry: %w: ts in nanoseconds: %t, keys: %s; if it is the one QuestDB keeps about itself, "+
			"set telemetry.enabled=false there and drop it", errSchema, nanos, got)
	}
	return nil
}
