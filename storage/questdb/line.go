package questdb

import (
	"context"
	"math"
	"time"

	questdb "github.com/questdb/go-questdb-client/v3"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
)

// item is one row of QuestDB to be: a sample of rows, or an alert transition.
type item struct {
	rows   *host.Rows // nil: refused, no longer sent
	sample int        // index, -1: it is an alert
	alert  int
}

// write adds the lines of an item to s and says how many there are. A sample is one line, and one
// more for each metric without a column.
func (w *Writer) write(ctx context.Context, s questdb.LineSender, it item) (lines int, err error) {
	if it.sample < 0 {
		return 1, writeAlert(ctx, s, &it.rows.Alerts[it.alert])
	}
	row := &it.rows.Samples[it.sample]
	ts := time.Unix(0, row.Time)
	s.Table("telemetry").Symbol("device", row.Device).Int64Column("boot", int64(row.Boot)).Int64Column("seq", int64(row.Seq))
	if row.Late {
		s.BoolColumn("late", true) // false is what an absent one reads as
	}
	long := false
	for i := range row.Readings {
		r := &row.Readings[i]
		col, ok := w.columns.byMetric[r.Name]
		if !ok {
			if col, ok, err = w.column(ctx, r.Name); err != nil {
				return 0, err
			}
		}
		if !ok {
			long = true
			continue
		}
		s.Float64Column(col.value, r.Value)
		if !math.IsNaN(r.Z) {
			s.Float64Column(col.z, r.Z)
		}
	}
	if err := s.At(ctx, ts); err != nil {
		return 0, &refusal{err}
	}
	if !long {
		return 1, nil
	}
	return w.writeLong(ctx, s, row, ts)
}

// writeLong adds a line for each reading without a column.
func (w *Writer) writeLong(ctx context.Context, s questdb.LineSender, row *host.Row, ts time.Time) (lines int, err error) {
	lines = 1
	for i := range row.Readings {
		r := &row.Readings[i]
		if _, ok := w.columns.byMetric[r.Name]; ok {
			continue
		}
		s.Table("telemetry_long").Symbol("device", row.Device).Symbol("metric", r.Name).
			Int64Column("boot", int64(row.Boot)).Int64Column("seq", int64(row.Seq)).Float64Column("value", r.Value)
		if !math.IsNaN(r.Z) {
			s.Float64Column("z", r.Z)
		}
		if err := s.At(ctx, ts); err != nil {
			return 0, &refusal{err}
		}
		lines++
	}
	return lines, nil
}

func writeAlert(ctx context.Context, s questdb.LineSender, t *host.Transition) error {
	a := &t.Alert
	err := s.Table("alerts").Symbol("device", t.Device).Symbol("rule", a.Rule).
		Symbol("severity", severity(a.Severity)).Symbol("state", state(a.State)).
		StringColumn("alert_id", codec.AlertID(a.ID)).Float64Column("value", a.Value).Float64Column("score", a.Score).
		At(ctx, time.Unix(0, a.UpdateTime))
	if err != nil {
		return &refusal{err}
	}
	return nil
}

// severity and state are the names of the public API.
func severity(s alert.Severity) string {
	switch s {
	case alert.Info:
		return "INFO"
	case alert.Warning:
		return "WARNING"
	case alert.Critical:
		return "CRITICAL"
	}
	return "SEVERITY_UNSPECIFIED"
}

func state(s alert.State) string {
	switch s {
	case alert.Pending:
		return "PENDING"
	case alert.Firing:
		return "FIRING"
	case alert.Resolved:
		return "RESOLVED"
	}
	return "ALERT_STATE_UNSPECIFIED"
}
