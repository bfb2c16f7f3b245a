package command

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/doppel-iot/doppel/sim/fleet"
)

// Options are the flags of `doppel sim`.
type Options struct {
	Devices      int
	Rate         float64 // samples per second and device; 0: unpaced
	Duration     time.Duration
	Broker       string
	GRPC, HTTP   string
	Kafka        []string
	QuestDB      string
	Connections  int
	Inflight     int
	Format       string
	Batch        int
	Metrics      int
	Anomalies    float64
	Faults       string
	Replay       string
	Speed        float64
	Seed         uint64
	Boot         uint64
	Prefix       string
	TopicRoot    string
	TopicPrefix  string
	MQTTUser     string
	MQTTPassword string // file
	TLSCA        string
	TLSCert      string
	TLSKey       string
	TLS          bool // of gRPC, HTTP and Kafka
	TokenFile    string
	Settle       time.Duration
	Verify       bool
	Report       string
	Quiet        bool
	Interactive  bool
	MQTTVersion  string
}

func (o *Options) register(fs *pflag.FlagSet) {
	fs.SortFlags = false
	fs.IntVar(&o.Devices, "devices", 100, "simulated devices (with --replay: 0 unless given)")
	fs.Float64Var(&o.Rate, "rate", 1, "samples per second and device; 0: as fast as they are acknowledged")
	fs.DurationVar(&o.Duration, "duration", time.Minute, "how long new samples are sent")
	fs.StringVar(&o.Broker, "broker", "mqtt://127.0.0.1:1883", "MQTT broker `URL`: mqtt://[USER:PASSWORD@]HOST:PORT or mqtts://…")
	fs.StringVar(&o.GRPC, "grpc", "127.0.0.1:9090", "gRPC `ADDRESS` of a node, for --verify; several with commas: any that answers")
	fs.StringVar(&o.HTTP, "http", "127.0.0.1:8080", "HTTP `ADDRESS` of the node, for its CPU time in /metrics; several with commas: of all of them")
	fs.StringSliceVar(&o.Kafka, "kafka", nil, "Kafka brokers `HOST:PORT`: --verify looks for every sample and dead letter (none: skipped)")
	fs.StringVar(&o.QuestDB, "questdb", "", "QuestDB `URL`: --verify counts rows (none: skipped)")
	fs.IntVar(&o.Connections, "connections", 0, "MQTT connections that the devices share (default 50, at most one for each device)")
	fs.IntVar(&o.Inflight, "inflight", 512, "unacknowledged messages of a connection, at most; when reached, the fleet slows down")
	fs.StringVar(&o.Format, "format", "protobuf", "payload `FORMAT`: protobuf, json or msgpack")
	fs.IntVar(&o.Batch, "batch", 1, "samples in a message")
	fs.IntVar(&o.Metrics, "metrics", 3, "metrics of a sample: temperature, vibration, pressure, …")
	fs.Float64Var(&o.Anomalies, "anomalies", 0, "chance `P` of a labelled anomaly, per device and minute (--rate 0: per 1,000 samples)")
	fs.StringVar(&o.Faults, "faults", "", "`LIST` of dup=P,reorder=P,poison=P, offline=P (per message; offline devices store and send later), drop-conn=P (per connection and second), skew=D (device clocks, within ±D)")
	fs.BoolVar(&o.Interactive, "interactive", false, "devices take desired properties and report them, obey _sampling, and answer the commands ping, set and reboot")
	fs.StringVar(&o.MQTTVersion, "mqtt-version", "5", "`VERSION` of MQTT: 5 or 3.1.1")
	fs.StringVar(&o.Replay, "replay", "", "`DIR` of CSV series (timestamp,value; any depth), each played as a device with the metric \"value\"")
	fs.Float64Var(&o.Speed, "speed", 1, "how much faster series are played; they start now, times shifted, and start over at their end")
	fs.Uint64Var(&o.Seed, "seed", 1, "seed of values, anomalies and faults")
	fs.Uint64Var(&o.Boot, "boot", 0, "boot the devices number their samples in (default: the start time in ms, so that each run is a new boot and not a repetition)")
	fs.StringVar(&o.Prefix, "prefix", "sim-", "beginning of the device ids")
	fs.StringVar(&o.TopicRoot, "topic-root", "devices", "first level of the MQTT topics")
	fs.StringVar(&o.TopicPrefix, "topic-prefix", "doppel.", "prefix of the Kafka topics")
	fs.StringVar(&o.TLSCA, "tls-ca", "", "certificate authorities `FILE` (PEM) for mqtts, and with --tls for the rest")
	fs.StringVar(&o.TLSCert, "tls-cert", "", "client certificate `FILE` (PEM) for the same")
	fs.StringVar(&o.TLSKey, "tls-key", "", "its private key `FILE` (PEM)")
	fs.BoolVar(&o.TLS, "tls", false, "gRPC, HTTP and Kafka with TLS, too")
	fs.StringVar(&o.TokenFile, "token-file", "", "`FILE` of the token to show to the node")
	fs.StringVar(&o.MQTTUser, "mqtt-user", "", "user at the broker: a service, or one that has all devices of the run")
	fs.StringVar(&o.MQTTPassword, "mqtt-password-file", "", "`FILE` of its password")
	fs.DurationVar(&o.Settle, "settle", time.Minute, "how long to wait at the end for what is not acknowledged")
	fs.BoolVar(&o.Verify, "verify", false, "compare twins, records, rows and alerts with what was sent")
	fs.StringVar(&o.Report, "report", "", "write the report as JSON to `FILE`")
	fs.BoolVar(&o.Quiet, "quiet", false, "no progress line")
}

// check finds what is wrong with the options alone.
func (o *Options) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Devices < 0 || o.Devices == 0 && o.Replay == "" {
		bad("devices: %d, want at least 1", o.Devices)
	}
	if !(o.Rate >= 0) || math.IsInf(o.Rate, 0) {
		bad("rate: %v, want 0 or more samples per second", o.Rate)
	}
	if o.Rate == 0 && o.Replay != "" {
		bad("rate: 0 (as fast as possible) does not go with replay, whose pace is that of the recording")
	}
	if o.MQTTVersion != "5" && o.MQTTVersion != "3.1.1" {
		bad("mqtt-version: %q, want 5 or 3.1.1", o.MQTTVersion)
	}
	if o.Duration <= 0 {
		bad("duration: %v, want more than 0", o.Duration)
	}
	if o.Metrics < 1 || o.Metrics > maxMetrics {
		bad("metrics: %d, want 1 to %d", o.Metrics, maxMetrics)
	}
	if !(o.Anomalies >= 0) {
		bad("anomalies: %v, want a chance of 0 or more", o.Anomalies)
	}
	if o.Connections < 0 {
		bad("connections: %d, want at least 1", o.Connections)
	}
	if o.Boot > math.MaxInt64 {
		bad("boot: %d, want at most 2^63-1", o.Boot)
	}
	if !(o.Speed > 0) || math.IsInf(o.Speed, 0) {
		bad("speed: %v, want more than 0", o.Speed)
	}
	if o.Settle <= 0 {
		bad("settle: %v, want more than 0", o.Settle)
	}
	if len(o.Prefix) > maxPrefix || !legalID(o.Prefix) {
		bad("prefix: %q, want at most %d of A-Z a-z 0-9 . _ : @ -", o.Prefix, maxPrefix)
	}
	return errors.Join(errs...)
}

const (
	maxMetrics = 64 // of a twin
	maxPrefix  = 28 // leaves room for the name of a series
	// maxSkew keeps event times below the 10 minutes ahead at which they are refused.
	maxSkew = 9 * time.Minute
)

func legalID(s string) bool {
	for i := range len(s) {
		c := s[i]
		legal := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._:@-", c) >= 0
		if !legal {
			return false
		}
	}
	return true
}

// parseFaults reads NAME=VALUE,….
func parseFaults(list string) (f fleet.Faults, skew time.Duration, err error) {
	if list == "" {
		return f, 0, nil
	}
	chances := map[string]*float64{"dup": &f.Dup, "reorder": &f.Reorder, "drop-conn": &f.DropConn, "poison": &f.Poison, "offline": &f.Offline}
	for item := range strings.SplitSeq(list, ",") {
		name, value, found := strings.Cut(strings.TrimSpace(item), "=")
		if !found {
			return f, 0, fmt.Errorf("faults: %q, want NAME=VALUE", item)
		}
		if name == "skew" {
			if skew, err = time.ParseDuration(value); err != nil || skew < 0 || skew > maxSkew {
				return f, 0, fmt.Errorf("faults: skew=%s, want a duration up to %v (times 10 min ahead are refused)", value, maxSkew)
			}
			continue
		}
		p, known := chances[name]
		if !known {
			return f, 0, fmt.Errorf("faults: %q, want dup, reorder, drop-conn, offline, skew or poison", name)
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || !(v >= 0 && v <= 1) {
			return f, 0, fmt.Errorf("faults: %s=%s, want a chance between 0 and 1", name, value)
		}
		*p = v
	}
	return f, skew, nil
}
