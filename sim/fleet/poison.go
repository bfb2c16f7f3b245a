package fleet

import (
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/doppel-iot/doppel/sim/device"
)

// poison is a message that every node must refuse: acknowledged, and put into the dead letters with
// its bytes. It has no readable number, so that it leaves no hole in the device's numbering, and no
// two are alike, so that each can be found.
type poison struct {
	reason      string // of the public contract
	contentType string
	payload     []byte
}

const (
	tooLarge       = 64<<10 + 1
	tooManySamples = 1001
	tooManyMetrics = 65
)

// brew gives one poison of a kind drawn at random; the big ones are rare.
func brew(r *device.Random, id string, now int64) poison {
	nonce := r.Uint64() >> 12
	if r.Chance(0.02) {
		if r.Chance(0.5) {
			return brewLarge(nonce)
		}
		return brewManySamples(nonce)
	}
	kinds := []func(nonce uint64, id string, now int64) poison{
		brewUndecodable, brewTruncated, brewContentType, brewManyMetrics, brewMetricName, brewNotFinite,
		brewNoContent, brewNumberRange, brewTimeUnit, brewTooOld, brewInFuture,
	}
	return kinds[r.Intn(len(kinds))](nonce, id, now)
}

func jsonPoison(reason, format string, args ...any) poison {
	return poison{reason: reason, contentType: JSON.contentType(), payload: fmt.Appendf(nil, format, args...)}
}

func brewUndecodable(nonce uint64, id string, _ int64) poison {
	return jsonPoison("not_decodable", `{"device":%q,"nonce":%d,"metrics":{"temperature":`, id, nonce)
}

func brewTruncated(nonce uint64, _ string, _ int64) poison {
	b := protowire.AppendTag(nil, telemetryTime, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, nonce)
	b = protowire.AppendTag(b, telemetryMetrics, protowire.BytesType)
	return poison{reason: "not_decodable", contentType: Protobuf.contentType(), payload: protowire.AppendVarint(b, 200)}
}

func brewContentType(nonce uint64, id string, _ int64) poison {
	return poison{reason: "content_type", contentType: "text/csv", payload: fmt.Appendf(nil, "%s,%d,21.5", id, nonce)}
}

func brewLarge(nonce uint64) poison {
	p := jsonPoison("too_large", `{"nonce":%d,"metrics":{"temperature":21.5}}`, nonce)
	p.payload = append(p.payload, strings.Repeat(" ", tooLarge-len(p.payload))...)
	return p
}

func brewManySamples(nonce uint64) poison {
	one := `{"metrics":{"temperature":21.5}}`
	all := strings.Repeat(one+",", tooManySamples-1) + one
	return jsonPoison("too_many_samples", `{"nonce":%d,"samples":[%s]}`, nonce, all)
}

func brewManyMetrics(nonce uint64, _ string, _ int64) poison {
	var b strings.Builder
	for i := range tooManyMetrics {
		fmt.Fprintf(&b, `"m%d":%d,`, i, nonce)
	}
	return jsonPoison("too_many_metrics", `{"metrics":{%s}}`, strings.TrimSuffix(b.String(), ","))
}

func brewMetricName(nonce uint64, _ string, _ int64) poison {
	return jsonPoison("metric_name", `{"metrics":{"not a name %d":1}}`, nonce)
}

func brewNotFinite(nonce uint64, _ string, _ int64) poison {
	entry := protowire.AppendTag(nil, 1, protowire.BytesType)
	entry = protowire.AppendString(entry, "temperature")
	entry = protowire.AppendTag(entry, 2, protowire.Fixed64Type)
	// The payload bits of a NaN are free: they carry the nonce.
	bits := uint64(0x7ff8)<<48 | nonce&(1<<48-1)
	entry = protowire.AppendFixed64(entry, bits)
	b := protowire.AppendTag(nil, telemetryMetrics, protowire.BytesType)
	return poison{reason: "not_finite", contentType: Protobuf.contentType(), payload: protowire.AppendBytes(b, entry)}
}

func brewNoContent(nonce uint64, _ string, now int64) poison {
	return jsonPoison("no_content", `{"time":%d}`, now-int64(nonce%uint64(time.Hour)))
}

func brewNumberRange(nonce uint64, _ string, _ int64) poison {
	return jsonPoison("number_range", `{"seq":%d,"metrics":{"temperature":21.5}}`, uint64(math.MaxInt64)+1+nonce)
}

func brewTimeUnit(nonce uint64, _ string, now int64) poison {
	micros := now/1000 + int64(nonce%1e9)
	return jsonPoison("time_unit", `{"time":%d,"metrics":{"temperature":21.5}}`, micros)
}

func brewTooOld(nonce uint64, _ string, _ int64) poison {
	return jsonPoison("time_too_old", `{"time":"1999-12-31T00:00:00.%09dZ","metrics":{"temperature":21.5}}`, nonce%1e9)
}

func brewInFuture(nonce uint64, _ string, now int64) poison {
	at := now + int64(time.Hour) + int64(nonce%1e9)
	return jsonPoison("time_in_future", `{"time":%d,"metrics":{"temperature":21.5}}`, at)
}
