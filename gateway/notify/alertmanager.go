package notify

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// alertmanagerMost is how many alerts are told in a request, and lives how many missed repetitions
	// make an Alertmanager take one for resolved: both as Prometheus does it.
	alertmanagerMost = 64
	lives            = 4
)

// alertmanager makes requests to the API v2. An Alertmanager knows an alert by its labels, so one whose
// labels change (it escalates, its device gets a tag) is ended under the old ones.
type alertmanager struct {
	cfg  *Sink
	told map[string]told // by id: the alerts that fire there, as far as this lane knows
}

type told struct {
	labels map[string]string
	start  time.Time
}

// postableAlert is one of the API's POST /api/v2/alerts.
type postableAlert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
}

func (*alertmanager) most() int     { return alertmanagerMost }
func (*alertmanager) repeats() bool { return true }

func (m *alertmanager) retain(firing []*doppelv1.Alert) {
	ids := make(map[string]bool, len(firing))
	for _, a := range firing {
		ids[a.GetId()] = true
	}
	maps.DeleteFunc(m.told, func(id string, _ told) bool { return !ids[id] })
}

func (m *alertmanager) request(events []host.Published) (*request, error) {
	alerts := make([]*doppelv1.Alert, 0, len(events))
	for i := range events {
		alerts = append(alerts, events[i].Alert)
	}
	return m.repeat(alerts)
}

func (m *alertmanager) repeat(alerts []*doppelv1.Alert) (*request, error) {
	now := time.Now()
	posts := make([]postableAlert, 0, len(alerts))
	for _, a := range alerts {
		p := m.postable(a, now)
		if before, ok := m.told[a.GetId()]; ok && !maps.Equal(before.labels, p.Labels) {
			posts = append(posts, postableAlert{Labels: before.labels, Annotations: p.Annotations, StartsAt: before.start, EndsAt: now})
		}
		if a.GetState() == doppelv1.AlertState_FIRING {
			m.told[a.GetId()] = told{p.Labels, p.StartsAt}
		}
		posts = append(posts, p)
	}
	body, err := json.Marshal(posts)
	if err != nil {
		return nil, fmt.Errorf("alerts as JSON: %w", err)
	}
	for _, a := range alerts {
		if a.GetState() != doppelv1.AlertState_FIRING {
			delete(m.told, a.GetId())
		}
	}
	return &request{
		url: strings.TrimSuffix(m.cfg.URL, "/") + "/api/v2/alerts", body: body, header: map[string]string{"Content-Type": "application/json"},
	}, nil
}

// postable is an alert in an Alertmanager's words. One that fires ends by itself, unless it is told again.
func (m *alertmanager) postable(a *doppelv1.Alert, now time.Time) postableAlert {
	p := postableAlert{Labels: labels(a), StartsAt: first(a.GetFireTime(), a.GetCreateTime()), EndsAt: now.Add(lives * m.cfg.ResendEvery)}
	if a.GetState() == doppelv1.AlertState_RESOLVED {
		if p.EndsAt = first(a.GetResolveTime(), a.GetUpdateTime()); p.EndsAt.Before(p.StartsAt) {
			p.EndsAt = p.StartsAt
		}
	}
	p.Annotations = map[string]string{
		"summary": fmt.Sprintf("%s on %s", a.GetRule(), a.GetDevice()), "description": a.GetReason(), "alert_id": a.GetId(),
		"value": strconv.FormatFloat(a.GetValue(), 'g', -1, 64), "score": strconv.FormatFloat(a.GetScore(), 'g', -1, 64),
	}
	if by := a.GetAcknowledgedBy(); by != "" {
		p.Annotations["acknowledged_by"] = by
	}
	return p
}

func first(a, b *timestamppb.Timestamp) time.Time {
	if a == nil {
		a = b
	}
	return a.AsTime()
}

// labels are alertname (the rule), device, severity, metric, and the device's tags; a tag that would hide
// one of these is called tag_NAME.
func labels(a *doppelv1.Alert) map[string]string {
	l := map[string]string{"alertname": a.GetRule(), "device": a.GetDevice(), "severity": strings.ToLower(a.GetSeverity().String())}
	if a.GetMetric() != "" {
		l["metric"] = a.GetMetric()
	}
	for _, key := range slices.Sorted(maps.Keys(a.GetTags())) {
		name := labelName(key)
		if _, taken := l[name]; taken || name == "metric" {
			name = "tag_" + name
		}
		l[name] = a.GetTags()[key]
	}
	return l
}

// labelName is a tag's key as Alertmanagers of any version take it.
func labelName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_':
			return r
		}
		return '_'
	}, key)
	if name == "" || '0' <= name[0] && name[0] <= '9' || strings.HasPrefix(name, "__") {
		name = "tag_" + name
	}
	return name
}
