package questdb

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
)

func TestTablesAreMadeBeforeTheFirstRow(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{TTL: 48 * time.Hour})
	f.started()
	want(t, db, `SELECT "column", type, upsertKey FROM (SHOW COLUMNS FROM telemetry)`,
		"[[ts TIMESTAMP_NS true] [device SYMBOL true] [boot LONG true] [seq LONG true] [late BOOLEAN false]]")
	want(t, db, `SELECT "column", type, upsertKey FROM (SHOW COLUMNS FROM telemetry_long)`,
		"[[ts TIMESTAMP_NS true] [device SYMBOL true] [boot LONG true] [seq LONG true] [metric SYMBOL true] [value DOUBLE false] [z DOUBLE false]]")
	want(t, db, `SELECT "column", type, upsertKey FROM (SHOW COLUMNS FROM alerts)`,
		"[[ts TIMESTAMP_NS true] [device SYMBOL false] [rule SYMBOL false] [severity SYMBOL false] [state SYMBOL true]"+
			" [alert_id VARCHAR true] [value DOUBLE false] [score DOUBLE false]]")
	want(t, db, `SELECT table_name, partitionBy, walEnabled, dedup, ttlValue, ttlUnit FROM tables() WHERE table_name IN ('telemetry', 'telemetry_long', 'alerts') ORDER BY 1`,
		"[[alerts DAY true true 2 DAY] [telemetry DAY true true 2 DAY] [telemetry_long DAY true true 2 DAY]]")
}

func TestARowIsExactlyItsSample(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.log.claim()
	f.started()
	exact := []twin.AppliedSample{
		{Own: true, Numbered: true, Boot: 3, Seq: math.MaxInt64, Time: t0, Readings: []twin.ScoredReading{
			{Name: "temperature", Value: 0.30000000000000004, Z: -1.0 / 3, Score: 9}, {Name: "tiny", Value: math.SmallestNonzeroFloat64, Z: math.NaN()},
		}},
		{Numbered: true, Boot: 3, Seq: 7, Time: t0 + 1, Late: true, Readings: []twin.ScoredReading{{Name: "temperature", Value: math.MaxFloat64, Z: math.NaN()}}},
		{Boot: 9, Seq: 9, Count: 41, Time: t0 + 2, Readings: []twin.ScoredReading{{Name: "temperature", Value: 21, Z: 0}}},
		{Numbered: true, Boot: 3, Seq: 8, Time: t0 + 3},
	}
	if !f.offer(f.log.event("a1:b2@x.y-z", exact)) {
		t.Fatal("rows not taken")
	}
	f.settled()
	// Compared as QuestDB prints them, with every digit: its own = takes 1e-10 for equal.
	at := " FROM telemetry WHERE ts::long = " + strconv.FormatInt(t0, 10)
	want(t, db, "SELECT device, boot::varchar, seq::varchar, late, temperature, temperature_z, tiny"+at,
		"[[a1:b2@x.y-z 3 9223372036854775807 false 0.30000000000000004 -0.3333333333333333 5e-324]]")
	want(t, db, "SELECT ts::long - "+strconv.FormatInt(t0, 10)+" d, device, boot, seq, late, temperature, temperature_z FROM telemetry WHERE ts::long > "+strconv.FormatInt(t0, 10)+" ORDER BY d",
		"[[1 a1:b2@x.y-z 3 7 true 1.7976931348623157e+308 <nil>] [2 a1:b2@x.y-z 0 41 false 21 0] [3 a1:b2@x.y-z 3 8 false <nil> <nil>]]")
}

func TestRowsWrittenAgainAreAbsorbed(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.log.claim()
	f.started()
	for seq := 1; seq <= 100; seq++ {
		f.offer(f.log.event("d", sample(seq, "m", float64(seq)), alert.Alert{ID: 5, State: alert.Firing, UpdateTime: t0}))
	}
	f.settled()
	f.stop()
	want(t, db, "SELECT count(), sum(m) FROM telemetry", "[[100 5050]]")

	// A node that lost its cursor writes everything again.
	f.path += ".lost"
	f.renew()
	f.started()
	f.offer(f.log.event("d", sample(101, "m", 0.0)))
	f.settled()
	if got := f.Stats().Rows.Load(); got != 201 {
		t.Errorf("wrote %d rows, want all 201 again", got)
	}
	want(t, db, "SELECT count(), sum(m) FROM telemetry", "[[101 5050]]")
	want(t, db, "SELECT count() FROM alerts", "[[1]]")
}

func TestAlertTransitionsAreRows(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.log.claim()
	f.started()
	a := alert.Alert{ID: 0xab, Rule: "builtin.zscore", Metric: "m", Severity: alert.Warning, State: alert.Pending, UpdateTime: t0, Value: 80.5, Score: 4.5}
	b := a
	b.State, b.Severity, b.UpdateTime = alert.Firing, alert.Critical, t0+1
	c := b
	c.State, c.Severity, c.UpdateTime = alert.Resolved, alert.Info, t0+2
	f.offer(f.log.event("pump-1", nil, a, b))
	f.offer(f.log.event("pump-1", nil, c))
	f.settled()
	want(t, db, "SELECT ts::long - "+strconv.FormatInt(t0, 10)+" d, device, rule, severity, state, alert_id, value, score FROM alerts ORDER BY d",
		"[[0 pump-1 builtin.zscore WARNING PENDING 00000000000000ab 80.5 4.5] [1 pump-1 builtin.zscore CRITICAL FIRING 00000000000000ab 80.5 4.5]"+
			" [2 pump-1 builtin.zscore INFO RESOLVED 00000000000000ab 80.5 4.5]]")
}

func TestAClashingMetricHasAStableColumn(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.log.claim()
	f.started()
	metrics := []string{"temp", "Temp", "TEMP", "temp_z", "ts", "Late", "speed_z", "speed"}
	all := func(seq int, names ...string) []twin.AppliedSample {
		var pairs []any
		for _, n := range names {
			pairs = append(pairs, n, float64(len(n)+10*seq))
		}
		return sample(seq, pairs...)
	}
	f.offer(f.log.event("d", all(1, metrics...)))
	f.settled()
	f.stop()
	mapping := "[[temp temp] [Temp Temp__2] [TEMP TEMP__3] [temp_z temp_z__2] [ts ts__2] [Late Late__2] [speed_z speed_z] [speed speed__2]]"
	want(t, db, `SELECT metric, "column" FROM metric_columns`, mapping)

	// Another node meets them the other way round.
	f.renew()
	f.started()
	f.offer(f.log.event("d", all(2, "speed", "Late", "TEMP", "Temp", "temp")))
	f.settled()
	want(t, db, `SELECT metric, "column" FROM metric_columns`, mapping)
	want(t, db, "SELECT seq, temp, Temp__2, TEMP__3, temp_z__2, ts__2, Late__2, speed_z, speed__2 FROM telemetry ORDER BY seq",
		"[[1 14 14 14 16 12 14 17 15] [2 24 24 24 <nil> <nil> 24 <nil> 25]]")
}

func TestTooManyMetricsGoToTheLongTable(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{MaxMetrics: 2})
	f.log.claim()
	f.started()
	s := sample(1, "a", 1.0, "b", 2.0, "c", 3.0, "d", 4.0)
	s[0].Readings[3].Z = 2.5
	f.offer(f.log.event("x", s))
	f.offer(f.log.event("x", sample(2, "e", 5.0)))
	f.settled()
	want(t, db, "SELECT seq, a, b FROM telemetry ORDER BY seq", "[[1 1 2] [2 <nil> <nil>]]")
	want(t, db, "SELECT ts::long - "+strconv.FormatInt(t0, 10)+", device, boot, seq, metric, value, z FROM telemetry_long ORDER BY metric",
		"[[1e+09 x 1 1 c 3 <nil>] [1e+09 x 1 1 d 4 2.5] [2e+09 x 1 2 e 5 <nil>]]")
	want(t, db, "SELECT count() FROM metric_columns", "[[2]]")
}
