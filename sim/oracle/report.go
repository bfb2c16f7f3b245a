package oracle

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what a run came to, in the shape of the public contract. Counts are samples; null is
// what was not measured.
type Report struct {
	Sent             uint64    `json:"sent"`
	Acked            uint64    `json:"acked"`
	Lost             uint64    `json:"lost"`
	Duplicated       uint64    `json:"duplicated"`
	Reordered        uint64    `json:"reordered"`
	DigestMismatches uint64    `json:"digest_mismatches"` // devices
	Rate             float64   `json:"rate"`              // acknowledged samples a second
	LatencyMS        Latencies `json:"latency_ms"`
	Alerts           *Alerts   `json:"alerts"`
	// NodeCPU is the node's CPU time by acknowledged MQTT message of any kind.
	NodeCPU *float64 `json:"node_cpu_us_per_message"`

	// What the contract does not name.
	Devices          int      `json:"devices"`
	Boot             uint64   `json:"boot"`
	Seed             uint64   `json:"seed"`
	Messages         uint64   `json:"messages"` // acknowledged PUBLISHes, faults included
	Resent           uint64   `json:"resent"`
	DuplicatesSent   uint64   `json:"duplicates_sent"`
	SwapsSent        uint64   `json:"swaps_sent"`
	Late             uint64   `json:"late"` // as twins count them; most are swapped ones that were delayed
	Cuts             uint64   `json:"connections_cut"`
	PoisonSent       uint64   `json:"poison_sent"`
	PoisonFound      *int     `json:"poison_found"`
	Refusals         uint64   `json:"refusals"`
	QuestDBRows      *uint64  `json:"questdb_rows"`
	QuestDBSettledMS *float64 `json:"questdb_settled_ms"`
	Verified         bool     `json:"verified"`
	Skipped          []string `json:"skipped"`
	Findings         []string `json:"findings"`
}

// Latencies are the ways a sample takes.
type Latencies struct {
	Puback *Percentiles `json:"puback"` // publish → PUBACK
	Kafka  *Percentiles `json:"kafka"`  // publish → record visible to a consumer
	Alert  *Percentiles `json:"alert"`  // publish → transition at a gRPC subscriber
}

// Percentiles are milliseconds.
type Percentiles struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// MarshalJSON keeps the keys of what was not measured, each null.
func (l Latencies) MarshalJSON() ([]byte, error) {
	type absent struct {
		P50  *float64 `json:"p50"`
		P90  *float64 `json:"p90"`
		P99  *float64 `json:"p99"`
		P999 *float64 `json:"p999"`
		Max  *float64 `json:"max"`
	}
	var all struct {
		Puback any `json:"puback"`
		Kafka  any `json:"kafka"`
		Alert  any `json:"alert"`
	}
	for to, p := range map[*any]*Percentiles{&all.Puback: l.Puback, &all.Kafka: l.Kafka, &all.Alert: l.Alert} {
		if *to = p; p == nil {
			*to = absent{}
		}
	}
	return json.Marshal(all)
}

// PercentilesOf reads a histogram in µs; nil if it is empty.
func PercentilesOf(h *hdrhistogram.Histogram) *Percentiles {
	if h == nil || h.TotalCount() == 0 {
		return nil
	}
	ms := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1000 }
	return &Percentiles{P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), Max: float64(h.Max()) / 1000}
}

// WriteFile writes the report as JSON.
func (r *Report) WriteFile(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil { //nolint:gosec // a report is for everyone
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// shown is how many findings a summary names.
const shown = 10

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	p := &printer{w: w}
	p.line("%d devices, boot %d, seed %d", r.Devices, r.Boot, r.Seed)
	p.line("  sent %d, acknowledged %d samples, %.0f/s, sent again %d", r.Sent, r.Acked, r.Rate, r.Resent)
	p.line("  faults: %d duplicates, %d swapped, %d connections cut, %d poison messages%s",
		r.DuplicatesSent, r.SwapsSent, r.Cuts, r.PoisonSent, r.poisonFound())
	p.latency("publish to PUBACK", r.LatencyMS.Puback)
	p.latency("publish to Kafka", r.LatencyMS.Kafka)
	p.latency("publish to alert", r.LatencyMS.Alert)
	if r.NodeCPU != nil {
		p.line("  node CPU %.1f µs a message", *r.NodeCPU)
	}
	if r.QuestDBRows != nil && r.QuestDBSettledMS != nil {
		p.line("  QuestDB: %d rows, %.1f s after the last acknowledgement", *r.QuestDBRows, *r.QuestDBSettledMS/1000)
	}
	if a := r.Alerts; a != nil {
		p.line("  anomalies: %d found, %d missed, %d false alarms%s", a.TruePositive, a.FalseNegative, a.FalsePositive, a.summary())
	}
	if r.Verified {
		p.line("  lost %d, duplicated %d, reordered %d, digest mismatches %d", r.Lost, r.Duplicated, r.Reordered, r.DigestMismatches)
		if r.Late > 0 {
			p.line("  late %d (swapped samples that came when the twin had waited its 500 ms)", r.Late)
		}
	}
	for _, s := range r.Skipped {
		p.line("  skipped: %s", s)
	}
	for i, f := range r.Findings {
		if i == shown {
			p.line("  … and %d more in the report", len(r.Findings)-shown)
			break
		}
		p.line("  %s", f)
	}
	return p.err
}

func (r *Report) poisonFound() string {
	if r.PoisonFound == nil {
		return ""
	}
	return fmt.Sprintf(" (%d in the dead letters)", *r.PoisonFound)
}

func (a *Alerts) summary() string {
	s := ""
	if a.Precision != nil {
		s += fmt.Sprintf(", precision %.2f", *a.Precision)
	}
	if a.Recall != nil {
		s += fmt.Sprintf(", recall %.2f", *a.Recall)
	}
	if a.DelayMSP50 != nil {
		s += fmt.Sprintf(", median delay %.0f ms", *a.DelayMSP50)
	}
	return s
}

// printer keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *printer) latency(name string, l *Percentiles) {
	if l != nil {
		p.line("  %-18s p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f ms", name, l.P50, l.P90, l.P99, l.P999, l.Max)
	}
}
