package codec

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// AlertID is the public form of an alert's id: 16 hex digits.
func AlertID(id uint64) string {
	return hex.EncodeToString(binary.BigEndian.AppendUint64(nil, id))
}

// Alert is the public form of an alert.
func Alert(device string, a *alert.Alert) *doppelv1.Alert {
	return &doppelv1.Alert{
		Id:             AlertID(a.ID),
		Device:         device,
		Rule:           a.Rule,
		RuleVersion:    a.RuleVersion,
		Metric:         a.Metric,
		Severity:       doppelv1.Severity(a.Severity),
		State:          doppelv1.AlertState(a.State),
		CreateTime:     timestamp(a.CreateTime),
		FireTime:       timestamp(a.FireTime),
		ResolveTime:    timestamp(a.ResolveTime),
		UpdateTime:     timestamp(a.UpdateTime),
		Value:          a.Value,
		Score:          a.Score,
		BaselineCount:  a.BaselineCount,
		BaselineMean:   a.BaselineMean,
		BaselineStddev: a.BaselineStddev,
		Boot:           a.Boot,
		Seq:            a.Seq,
		Reason:         strings.ToValidUTF8(a.Reason, "\uFFFD"),

		AcknowledgeTime:    timestamp(a.AcknowledgeTime),
		AcknowledgedBy:     strings.ToValidUTF8(a.AcknowledgedBy, "\uFFFD"),
		AcknowledgeComment: strings.ToValidUTF8(a.AcknowledgeComment, "\uFFFD"),
		Silenced:           a.Silenced(),
		Silence:            a.Silence,
		Shadow:             a.Shadow,
		Flapping:           a.Flapping,
		EscalateTime:       timestamp(a.EscalateTime),
		Tags:               maps.Clone(a.Tags),
	}
}

// AlertFrom is the inverse of Alert, for what was stored.
func AlertFrom(p *doppelv1.Alert) (alert.Alert, error) {
	id, err := strconv.ParseUint(p.GetId(), 16, 64)
	if err != nil {
		return alert.Alert{}, fmt.Errorf("alert id: %w", err)
	}
	return alert.Alert{
		ID:             id,
		Rule:           p.GetRule(),
		RuleVersion:    p.GetRuleVersion(),
		Metric:         p.GetMetric(),
		Severity:       alert.Severity(p.GetSeverity()),
		State:          alert.State(p.GetState()),
		CreateTime:     nanos(p.GetCreateTime()),
		FireTime:       nanos(p.GetFireTime()),
		ResolveTime:    nanos(p.GetResolveTime()),
		UpdateTime:     nanos(p.GetUpdateTime()),
		Value:          p.GetValue(),
		Score:          p.GetScore(),
		BaselineCount:  p.GetBaselineCount(),
		BaselineMean:   p.GetBaselineMean(),
		BaselineStddev: p.GetBaselineStddev(),
		Boot:           p.GetBoot(),
		Seq:            p.GetSeq(),
		Reason:         p.GetReason(),

		AcknowledgeTime:    nanos(p.GetAcknowledgeTime()),
		AcknowledgedBy:     p.GetAcknowledgedBy(),
		AcknowledgeComment: p.GetAcknowledgeComment(),
		Silence:            p.GetSilence(),
		Shadow:             p.GetShadow(),
		Flapping:           p.GetFlapping(),
		EscalateTime:       nanos(p.GetEscalateTime()),
		Tags:               p.GetTags(),
	}, nil
}

// timestamp is nil for 0, which means not yet.
func timestamp(nanos int64) *timestamppb.Timestamp {
	if nanos == 0 {
		return nil
	}
	return timestampIn(new(timestamppb.Timestamp), nanos)
}

// timestampIn is to with nanos in it; nil for 0.
func timestampIn(to *timestamppb.Timestamp, nanos int64) *timestamppb.Timestamp {
	if nanos == 0 {
		return nil
	}
	at := time.Unix(0, nanos)
	to.Seconds, to.Nanos = at.Unix(), int32(at.Nanosecond())
	return to
}

func nanos(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return t.AsTime().UnixNano()
}
