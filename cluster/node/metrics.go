package node

import (
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	"github.com/doppel-iot/doppel/cluster/router"
)

// metrics are what /metrics shows besides the process itself (contract section 9). Counters are read
// from the host's accounts when scraped; only stage times are pushed.
type metrics struct {
	registry *prometheus.Registry
	stages   map[host.Stage]prometheus.Observer
}

// stages that anything observes; the host names its own.
const (
	stageReceive host.Stage = "receive"
	stagePuback  host.Stage = "puback"
	stageQuestDB host.Stage = "questdb"
)

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), stages: make(map[host.Stage]prometheus.Observer)}
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "doppel_stage_seconds", Help: "Time of a stage of a sample's way, observed once a batch.",
		Buckets: prometheus.ExponentialBuckets(1e-6, 4, 13), // 1 µs to 17 s
	}, []string{"stage"})
	for _, s := range []host.Stage{stageReceive, host.StageRoute, host.StageApply, host.StageDurable, stagePuback, stageQuestDB, host.StageAlert} {
		m.stages[s] = seconds.WithLabelValues(string(s))
	}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "doppel_build_info", Help: "The build that runs; always 1.",
		ConstLabels: prometheus.Labels{"version": Version(), "goversion": goVersion()},
	}, func() float64 { return 1 })
	m.registry.MustRegister(seconds, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observe(s host.Stage, d time.Duration) { m.stages[s].Observe(d.Seconds()) }

// Version is the version of the running build.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func goVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.GoVersion
	}
	return ""
}

// accounts collects the host's accounts.
type accounts struct {
	host   *host.Host
	router *router.Router
	lag    func() int64  // rows not yet in QuestDB; nil: no QuestDB
	lost   func() uint64 // records removed before QuestDB had their rows
	from   func() string // source of messages: mqtt or embedded
}

var (
	descMessages    = prometheus.NewDesc("doppel_messages_received_total", "Device messages received.", []string{"source"}, nil)
	descReceived    = prometheus.NewDesc("doppel_samples_received_total", "Samples received; an undecodable message counts one.", nil, nil)
	descSamples     = prometheus.NewDesc("doppel_samples_total", "Samples by what became of them.", []string{"result"}, nil)
	descHeld        = prometheus.NewDesc("doppel_samples_held", "Samples waiting in reorder buffers.", nil, nil)
	descInFlight    = prometheus.NewDesc("doppel_samples_in_flight", "Samples received and not yet durable.", nil, nil)
	descGaps        = prometheus.NewDesc("doppel_sequence_gaps_total", "Episodes in which missing numbers were given up on.", nil, nil)
	descDead        = prometheus.NewDesc("doppel_dead_letters_total", "Dead letters by reason.", []string{"reason"}, nil)
	descPartitions  = prometheus.NewDesc("doppel_partitions", "Partitions by state.", []string{"state"}, nil)
	descTwins       = prometheus.NewDesc("doppel_twins", "Twins in memory.", []string{"state"}, nil)
	descOnline      = prometheus.NewDesc("doppel_twins_online", "Twins whose device is connected.", nil, nil)
	descOpen        = prometheus.NewDesc("doppel_alerts_open", "Alerts that are pending or firing.", nil, nil)
	descAlerts      = prometheus.NewDesc("doppel_alerts_total", "Alert transitions.", []string{"severity", "state"}, nil)
	descLag         = prometheus.NewDesc("doppel_questdb_lag_records", "Changelog records not yet in QuestDB.", nil, nil)
	descRowsLost    = prometheus.NewDesc("doppel_questdb_lost_records_total", "Changelog records removed before QuestDB had their rows.", nil, nil)
	descSlow        = prometheus.NewDesc("doppel_slow_path_total", "Messages sent through doppel.ingest.", []string{"reason"}, nil)
	descSlowFailed  = prometheus.NewDesc("doppel_slow_path_failures_total", "Messages that doppel.ingest did not take; their doors kept them.", nil, nil)
	descSlowWaiting = prometheus.NewDesc("doppel_slow_path_waiting", "Messages on their way into doppel.ingest.", nil, nil)
	descRerouted    = prometheus.NewDesc("doppel_ingest_rerouted_total", "Records of doppel.ingest moved to the partition of their key.", nil, nil)
	descIngestLost  = prometheus.NewDesc("doppel_ingest_lost_total", "Records of doppel.ingest removed before any owner saw them.", nil, nil)
	descForced      = prometheus.NewDesc("doppel_sequence_gaps_forced_total", "Gaps declared before it was sure that nothing of them was on its way.", nil, nil)
	descCheckpoints = prometheus.NewDesc("doppel_checkpoints_total", "Checkpoints of twins that are durable.", nil, nil)
	descFloors      = prometheus.NewDesc("doppel_floors_total", "Floors, from which a restore starts, that are durable.", nil, nil)
	descFenced      = prometheus.NewDesc("doppel_fenced_total", "Epochs of this node that ended before it let go.", nil, nil)
	descVoid        = prometheus.NewDesc("doppel_void_records_total", "Changelog records that readers skipped.", nil, nil)
	descReplay      = prometheus.NewDesc("doppel_replay_differences_total", "Records whose replay gave other results than were recorded.", nil, nil)
	descPanics      = prometheus.NewDesc("doppel_twin_panics_total", "Twins quarantined because their code panicked.", nil, nil)
)

// Describe implements prometheus.Collector; the collector is unchecked.
func (a *accounts) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (a *accounts) Collect(ch chan<- prometheus.Metric) {
	s := a.host.Stats()
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	var messages uint64
	for i := range s.Messages {
		messages += s.Messages[i].Load()
	}
	ingested := s.Ingested.Load()
	counter(descMessages, messages-min(ingested, messages), a.from())
	counter(descMessages, ingested, "ingest")
	samples := s.Accounts()
	counter(descReceived, samples.Received)
	counter(descSamples, samples.Applied, "applied")
	counter(descSamples, samples.Late, "late")
	counter(descSamples, samples.Duplicate, "duplicate")
	counter(descSamples, samples.DeadLettered, "dead_lettered")
	gauge(descHeld, samples.Held)
	gauge(descInFlight, samples.InFlight)
	counter(descGaps, s.Gaps.Load())
	letters := make(map[twin.Reason]uint64) // all from the start: Prometheus sees no growth in a counter that begins with 1
	for _, r := range twin.Reasons() {
		letters[r] = 0
	}
	s.DeadLetters(func(r twin.Reason, n uint64) { letters[r] = n })
	for r, n := range letters {
		counter(descDead, n, string(r))
	}
	s.Transitions(func(severity, state uint8, n uint64) {
		counter(descAlerts, n, alert.Severity(severity).String(), alert.State(state).String())
	})
	byState := map[host.PartitionState]int64{host.Idle: 0, host.Claiming: 0, host.Restoring: 0, host.Serving: 0}
	var twins, passive, online, open int64
	for _, v := range a.host.Partitions() {
		byState[v.State]++
		twins, passive, online, open = twins+v.Twins, passive+v.Passive, online+v.Online, open+v.OpenAlerts
	}
	for state, n := range byState {
		gauge(descPartitions, n, string(state))
	}
	gauge(descTwins, twins-passive, "hot")
	gauge(descTwins, passive, "passive")
	gauge(descOnline, online)
	gauge(descOpen, open)
	if a.lag == nil {
		gauge(descLag, int64(0))
	} else {
		gauge(descLag, a.lag())
		counter(descRowsLost, a.lost())
	}
	slow := a.router.Stats()
	slow.Slow(func(reason string, n uint64) { counter(descSlow, n, reason) })
	counter(descSlowFailed, slow.Failed())
	gauge(descSlowWaiting, slow.Waiting())
	counter(descRerouted, s.Rerouted.Load())
	counter(descIngestLost, s.IngestLost.Load())
	counter(descForced, s.ForcedGaps.Load())
	counter(descCheckpoints, s.Checkpoints.Load())
	counter(descFloors, s.Floors.Load())
	counter(descFenced, s.Fenced.Load())
	counter(descVoid, s.Void.Load())
	counter(descReplay, s.ReplayDifferences.Load())
	counter(descPanics, s.Panics.Load())
}
