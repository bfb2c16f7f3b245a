package node_test

import (
	"strings"
	"testing"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// TestMetricsAreThere: a node exposes everything that others build upon, also what has not happened yet or
// needs a store that is not configured; and the way of an alert is timed.
func TestMetricsAreThere(t *testing.T) {
	n := nodetest.Start(t, nodetest.Embedded(t))
	apply(t, n, hot("hot", "*", 80))
	n.Device("d").Telemetry(`{"boot":1,"seq":1,"metrics":{"t":99}}`)
	awaitAlert(t, n, "hot", "firing", firing)
	var got nodetest.Metrics
	if !nodetest.Poll(func() bool { got = n.Metrics(); return got[`doppel_stage_seconds_count{stage="alert"}`] == 1 }) {
		t.Errorf("the way of an alert was timed %v times, want once", got[`doppel_stage_seconds_count{stage="alert"}`])
	}
	if took := got[`doppel_stage_seconds_sum{stage="alert"}`]; took <= 0 || took > nodetest.Patience.Seconds() {
		t.Errorf("the way of an alert took %v s", took)
	}
	there := make(map[string]bool)
	for name := range got {
		there[name] = true
		name, _, _ = strings.Cut(name, "{")
		there[name] = true
	}
	for _, name := range []string{
		`doppel_messages_received_total{source="embedded"}`, `doppel_messages_received_total{source="ingest"}`,
		"doppel_samples_received_total", `doppel_samples_total{result="applied"}`, `doppel_samples_total{result="late"}`,
		`doppel_samples_total{result="duplicate"}`, `doppel_samples_total{result="dead_lettered"}`,
		"doppel_samples_held", "doppel_samples_in_flight", "doppel_sequence_gaps_total", "doppel_dead_letters_total",
		`doppel_stage_seconds_count{stage="receive"}`, `doppel_stage_seconds_count{stage="route"}`, `doppel_stage_seconds_count{stage="apply"}`,
		`doppel_stage_seconds_count{stage="durable"}`, `doppel_stage_seconds_count{stage="puback"}`, `doppel_stage_seconds_count{stage="questdb"}`,
		`doppel_partitions{state="serving"}`, `doppel_twins{state="hot"}`, `doppel_twins{state="passive"}`,
		`doppel_alerts_total{severity="warning",state="firing"}`, "doppel_questdb_lag_records", "doppel_slow_path_total",
		"doppel_ingest_rerouted_total", "doppel_fenced_total", "doppel_build_info", "go_goroutines", "process_cpu_seconds_total",
	} {
		if !there[name] {
			t.Errorf("%s is missing", name)
		}
	}
}
