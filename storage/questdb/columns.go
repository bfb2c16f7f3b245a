package questdb

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// column is where the readings of a metric go in the table telemetry.
type column struct {
	value, z string
}

// columns maps metrics to columns. The map is the fold of the table metric_columns in its order of
// insertion, which QuestDB decides, so every node and every restart comes to the same one.
type columns struct {
	max      int
	byMetric map[string]column
	taken    map[string]bool // names in lower case: QuestDB's ignore case
}

func newColumns(limit int) *columns {
	c := &columns{max: limit, byMetric: map[string]column{}, taken: map[string]bool{}}
	for _, fixed := range []string{"ts", "device", "boot", "seq", "late"} {
		c.taken[fixed] = true
	}
	return c
}

// add folds one row of metric_columns: the first claim to a metric and to a name holds.
func (c *columns) add(metric, name string) {
	if _, ok := c.byMetric[metric]; ok || c.full() || !c.free(name) {
		return
	}
	col := column{value: name, z: name + "_z"}
	c.taken[strings.ToLower(col.value)], c.taken[strings.ToLower(col.z)] = true, true
	c.byMetric[metric] = col
}

func (c *columns) full() bool { return len(c.byMetric) >= c.max }

func (c *columns) free(name string) bool {
	name = strings.ToLower(name)
	return !c.taken[name] && !c.taken[name+"_z"]
}

// candidate is the name a metric without a column should claim: its own, or with the first number
// that is free.
func (c *columns) candidate(metric string) string {
	name := metric
	for i := 2; !c.free(name); i++ {
		name = metric + "__" + strconv.Itoa(i)
	}
	return name
}

// loadColumns reads metric_columns.
func (w *Writer) loadColumns(ctx context.Context) error {
	rows, err := w.db.query(ctx, `SELECT metric, "column" FROM metric_columns`)
	if err != nil {
		return fmt.Errorf("read metric columns: %w", err)
	}
	cols := newColumns(w.cfg.MaxMetrics)
	for _, r := range rows {
		metric, ok1 := r[0].(string)
		name, ok2 := r[1].(string)
		if ok1 && ok2 {
			cols.add(metric, name)
		}
	}
	w.columns = cols
	return nil
}

// column finds the column of a metric and claims one if it has none; ok is false for metrics that go
// to telemetry_long.
func (w *Writer) column(ctx context.Context, metric string) (col column, ok bool, err error) {
	for range 10 {
		if col, ok = w.columns.byMetric[metric]; ok {
			return col, true, nil
		}
		if w.columns.full() {
			return column{}, false, nil
		}
		name := w.columns.candidate(metric)
		if err := w.db.exec(ctx, "INSERT INTO metric_columns VALUES ("+quote(metric)+", "+quote(name)+")"); err != nil {
			return column{}, false, fmt.Errorf("claim a column for metric %s: %w", metric, err)
		}
		if err := w.loadColumns(ctx); err != nil {
			return column{}, false, err
		}
		if got := w.columns.byMetric[metric].value; got != metric && got != "" {
			w.logger.Info("metric has a column of another name", "metric", metric, "column", got)
		}
	}
	return column{}, false, fmt.Errorf("metric %s lost ten claims to a column", metric)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
