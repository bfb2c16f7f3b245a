package node

import (
	"context"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doppel-iot/doppel/gateway/cli"
	"github.com/doppel-iot/doppel/gateway/notify"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// sinks are those of the file notify.
func (c *Config) sinks() ([]notify.Sink, error) {
	if c.Notify == "" {
		return nil, nil
	}
	b, err := os.ReadFile(c.Notify)
	if err != nil {
		return nil, fmt.Errorf("notify: %w", err)
	}
	sinks, err := notify.Parse(b, cli.Nearest)
	if err != nil {
		return nil, fmt.Errorf("notify: %s: %w", c.Notify, err)
	}
	return sinks, nil
}

// openNotify starts to tell people of alerts; the partitions come when they are served.
func (a *assembly) openNotify(ctx context.Context) error {
	sinks, err := a.cfg.sinks()
	if err != nil || len(sinks) == 0 {
		return err
	}
	a.notifier, err = notify.New(notify.Config{
		Sinks: sinks, Log: a.storage.AlertLog(), Source: a.storage.AlertLog().Source(),
		Cursors: func(sink string) notify.Cursors { return a.storage.AlertCursors(a.cfg.Group + "-notify-" + sink) },
		Open:    func(ctx context.Context, p int32) ([]*doppelv1.Alert, error) { return a.host.Alerts(ctx, p) },
		Logger:  a.log.With("component", "notify"),
	})
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	if err := a.notifier.Begin(ctx); err != nil {
		return err
	}
	a.life.start("notify", a.notifier.Run) //nolint:contextcheck // parts outlive the start
	return nil
}

// served is told by the host of every partition that it begins or ceases to serve.
func (a *assembly) served(p int32, _ uint64, serving bool) {
	switch {
	case a.notifier == nil:
	case serving:
		a.notifier.Own(p)
	default:
		a.notifier.Release(p)
	}
}

var (
	descNotified  = prometheus.NewDesc("doppel_notifications_total", "Alert transitions told to a sink, by what became of them; failed are attempts.", []string{"sink", "result"}, nil)
	descNotifyLag = prometheus.NewDesc("doppel_notify_lag_records", "Records of doppel.alerts that a sink has not been through, of the partitions of this node.", []string{"sink"}, nil)
)

// notifications collects what became of notifications.
type notifications struct{ *notify.Notifier }

// Describe implements prometheus.Collector.
func (notifications) Describe(ch chan<- *prometheus.Desc) {
	ch <- descNotified
	ch <- descNotifyLag
}

// Collect implements prometheus.Collector.
func (n notifications) Collect(ch chan<- prometheus.Metric) {
	for _, s := range n.Stats() {
		for result, count := range s.Counts {
			ch <- prometheus.MustNewConstMetric(descNotified, prometheus.CounterValue, float64(count), s.Sink, string(result))
		}
		ch <- prometheus.MustNewConstMetric(descNotifyLag, prometheus.GaugeValue, float64(s.Lag), s.Sink)
	}
}
