// Package oracle judges what a node made of a simulated run: it compares what devices know they sent
// with twins over gRPC, records in Kafka, rows in QuestDB, dead letters and alerts.
//
// It shares no code with the node beyond the public messages. It does not send samples; the fleet
// tells it what was sent through its Observer. Open starts two goroutines (a Kafka consumer and an
// alert subscriber) that Close ends.
package oracle

import (
	"context"
	"crypto/tls"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/sim/fleet"
)

// Config says where to look. Empty Kafka and QuestDB: those checks are skipped, and said to be.
type Config struct {
	GRPC        string // HOST:PORT of a node, or several with commas: any of them is asked
	HTTP        string // HOST:PORT of /metrics, or several with commas: all nodes whose CPU time counts
	Kafka       []string
	TopicPrefix string // default "doppel."
	QuestDB     string // base URL of the HTTP API
	Boot        uint64
	IDs         []string // devices of the run
	Interval    time.Duration
	// Verify turns the checks on; without it only the nodes' CPU time is read.
	Verify bool
	// Dial says who this is to the nodes, and whether they are encrypted. Default: nobody, in plain text.
	Dial []grpc.DialOption
	// TLS is for Kafka and HTTP; nil: plain. Token is shown to /metrics.
	TLS   *tls.Config
	Token string
	Log   *slog.Logger
}

const (
	twinLimit  = 30 * time.Second // for twins and Kafka to show what was acknowledged
	rowLimit   = 10 * time.Second // for QuestDB
	alertLimit = 2 * time.Second  // for a last transition
	openLimit  = 10 * time.Second // for node and Kafka to answer at the start
	maxMessage = 64 << 20
)

// Patience makes a gRPC client try again while the partition it asks for is on its way to another node.
const Patience = `{"methodConfig": [{"name": [{}], "retryPolicy": {
	"maxAttempts": 5, "initialBackoff": "0.3s", "maxBackoff": "3s", "backoffMultiplier": 2.5, "retryableStatusCodes": ["UNAVAILABLE"]
}}]}`

// Oracle watches one run.
type Oracle struct {
	cfg    Config
	ledger *ledger
	conn   *grpc.ClientConn
	bases  map[string]base
	tail   *tail
	alerts *alertWatch
	scrape *scraper
	cpu    time.Duration
	cpuErr error

	cancel     context.CancelFunc
	background sync.WaitGroup
}

// Open reads what the twins hold before the run and starts watching.
func Open(ctx context.Context, cfg Config) (*Oracle, error) {
	if cfg.TopicPrefix == "" {
		cfg.TopicPrefix = "doppel."
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	o := &Oracle{cfg: cfg, ledger: newLedger(time.Now(), cfg.IDs), cancel: func() {}}
	if cfg.Verify {
		if err := o.watch(ctx); err != nil {
			o.Close()
			return nil, err
		}
	}
	o.scrape = newScraper(cfg.TLS, cfg.Token)
	o.cpu, o.cpuErr = o.scrape.nodesCPU(ctx, cfg.HTTP)
	return o, nil
}

func (o *Oracle) watch(ctx context.Context) error {
	conn, err := dial(o.cfg.GRPC, o.cfg.Dial)
	if err != nil {
		return err
	}
	o.conn = conn
	starting, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	twins, err := fetch(starting, doppelv1.NewTwinServiceClient(conn), o.cfg.IDs)
	if err != nil {
		return err
	}
	o.bases = basesOf(twins)

	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	o.cancel = stop
	alerts := doppelv1.NewAlertServiceClient(conn)
	o.alerts = newAlertWatch(o.cfg.Boot, o.ledger, o.cfg.Log)
	// The stream outlives the opening; a node that never ends its snapshot must not hang us.
	late := time.AfterFunc(openLimit, stop)
	stream, err := o.alerts.open(run, alerts)
	if err != nil {
		return err
	}
	late.Stop()
	o.background.Go(func() { o.alerts.run(run, alerts, stream) })

	if len(o.cfg.Kafka) > 0 {
		c := newChangelog(o.cfg.Boot, o.ledger, o.epochs(starting))
		if o.tail, err = openTail(starting, o.cfg.Kafka, o.cfg.TLS, o.cfg.TopicPrefix, c, o.ledger, o.cfg.Log); err != nil {
			return err
		}
		o.background.Go(func() { o.tail.run(run) })
	}
	return nil
}

// epochs asks the node which epoch is in force in each partition; without an answer the first
// record met stands for it.
func (o *Oracle) epochs(ctx context.Context) map[int32]uint64 {
	s, err := doppelv1.NewFleetServiceClient(o.conn).GetStatus(ctx, &doppelv1.GetStatusRequest{})
	if err != nil {
		o.cfg.Log.Warn("epochs not known", "error", err)
		return nil
	}
	epochs := make(map[int32]uint64)
	for _, p := range s.GetPartitions() {
		if p.GetOwner() != "" {
			epochs[p.GetId()] = p.GetEpoch()
		}
	}
	return epochs
}

// Observer is what the fleet must report to; nil without Verify.
func (o *Oracle) Observer() fleet.Observer {
	if !o.cfg.Verify {
		return nil
	}
	return o.ledger
}

// Base is what a device's twin held before the run.
func (o *Oracle) Base(id string) (digest, set uint64) {
	b := o.bases[id]
	return b.digest, b.set
}

// Check fills in what a report says of the node. p is the fleet's final account.
func (o *Oracle) Check(ctx context.Context, r *Report, devices []Device, p *fleet.Progress) {
	if o.cpuErr == nil && p.Messages > 0 {
		if after, err := o.scrape.nodesCPU(ctx, o.cfg.HTTP); err == nil && after >= o.cpu {
			us := float64((after - o.cpu).Microseconds()) / float64(p.Messages)
			r.NodeCPU = &us
		}
	}
	if !o.cfg.Verify {
		r.Skipped = append(r.Skipped, "verification (no --verify)")
		return
	}
	r.Verified = true
	end := time.Now()
	accounts := []*account{o.checkRows(ctx, r, devices, p, end), o.checkTwins(ctx, devices), o.checkLog(ctx, r, devices, p)}
	o.checkAlerts(ctx, r, devices)
	for _, a := range accounts {
		if a == nil {
			continue
		}
		// Sources see the same samples: the worst of them is the truth.
		r.Lost = max(r.Lost, a.lost)
		r.Duplicated = max(r.Duplicated, a.duplicated)
		r.Reordered = max(r.Reordered, a.reordered)
		r.DigestMismatches = max(r.DigestMismatches, a.mismatches)
		r.Late = max(r.Late, a.late)
		for _, f := range a.findings {
			r.Findings = append(r.Findings, f.String())
		}
	}
}

func (o *Oracle) checkTwins(ctx context.Context, devices []Device) *account {
	ctx, cancel := context.WithTimeout(ctx, twinLimit+openLimit)
	defer cancel()
	twins, err := settledTwins(ctx, doppelv1.NewTwinServiceClient(o.conn), devices, o.bases, twinLimit)
	if err != nil {
		return unchecked("twin", err)
	}
	a := judgeTwins(devices, o.bases, twins)
	if o.tail == nil {
		judgeLate(a, devices)
	}
	return a
}

func (o *Oracle) checkLog(ctx context.Context, r *Report, devices []Device, p *fleet.Progress) *account {
	if o.tail == nil {
		r.Skipped = append(r.Skipped, "Kafka (no --kafka)")
		return nil
	}
	o.tail.settle(ctx, devices, twinLimit)
	a := o.tail.judge(devices, int(p.PoisonSent-p.PoisonAcked))
	o.tail.mu.Lock()
	r.LatencyMS.Kafka = PercentilesOf(o.tail.changelog.latency)
	o.tail.mu.Unlock()
	_, found := o.ledger.poisonAccount()
	r.PoisonFound = &found
	return a
}

func (o *Oracle) checkRows(ctx context.Context, r *Report, devices []Device, p *fleet.Progress, end time.Time) *account {
	if o.cfg.QuestDB == "" {
		r.Skipped = append(r.Skipped, "QuestDB (no --questdb)")
		return nil
	}
	q := newRows(o.cfg.QuestDB)
	got, err := q.settle(ctx, o.cfg.Boot, p.Acked, rowLimit)
	if err != nil {
		return unchecked("questdb", err)
	}
	ms := float64(time.Since(end).Microseconds()) / 1000
	r.QuestDBRows, r.QuestDBSettledMS = &got, &ms
	found, err := q.perDevice(ctx, o.cfg.Boot)
	if err != nil {
		return unchecked("questdb", err)
	}
	return judgeRows(devices, found)
}

func (o *Oracle) checkAlerts(ctx context.Context, r *Report, devices []Device) {
	want := 0
	for _, d := range devices {
		want += len(d.Labels)
	}
	poll(ctx, alertLimit, func() bool { return len(o.alerts.seen()) >= want })
	alerts := judgeAlerts(devices, o.alerts.seen(), o.cfg.Interval)
	r.Alerts = &alerts
	o.alerts.mu.Lock()
	defer o.alerts.mu.Unlock()
	r.LatencyMS.Alert = PercentilesOf(o.alerts.latency)
}

func unchecked(source string, err error) *account {
	a := &account{source: source}
	a.add(Finding{Fault: Unchecked, Detail: err.Error()})
	return a
}

// Close ends what Open started. It may be called twice.
func (o *Oracle) Close() {
	o.cancel()
	o.background.Wait()
	if o.conn != nil {
		_ = o.conn.Close()
		o.conn = nil
	}
}
