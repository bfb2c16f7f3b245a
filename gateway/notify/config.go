package notify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/doppel-iot/doppel/actors/filter"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// The kinds of sinks.
const (
	Webhook      = "webhook"
	Alertmanager = "alertmanager"
)

// Sink is one receiver of alerts.
type Sink struct {
	// Name of its cursors and metrics: it goes on where the last sink of that name was.
	Name string `yaml:"name"`
	Kind string `yaml:"kind"` // webhook or alertmanager
	// URL of a webhook, or where an Alertmanager is, without /api/v2/alerts.
	URL string `yaml:"url"`
	// Filter is CEL over the fields of Alert; empty: all of them.
	Filter      string `yaml:"filter"`
	MinSeverity string `yaml:"min_severity"` // info (default), warning or critical
	// SendResolved also tells that an alert is over. Default true.
	SendResolved *bool `yaml:"send_resolved"`
	// Mode of the CloudEvents of a webhook: structured (default) or binary.
	Mode    string            `yaml:"mode"`
	Headers map[string]string `yaml:"headers"`
	// What is in these files is read anew for each request, without white space around it.
	BearerTokenFile string `yaml:"bearer_token_file"`
	Username        string `yaml:"username"`
	PasswordFile    string `yaml:"password_file"`
	// HMACSecretFile: requests to a webhook are signed with it in the header Doppel-Signature.
	HMACSecretFile string `yaml:"hmac_secret_file"`
	CAFile         string `yaml:"ca_file"` // instead of the system's authorities
	// Timeout of a request. Default 10 s.
	Timeout time.Duration `yaml:"timeout"`
	// MaxAge: what could not be delivered for so long is not any more. Default 24 h.
	MaxAge time.Duration `yaml:"max_age"`
	// ResendEvery is how often an Alertmanager is told of what fires. Default 1 min; it takes an alert for
	// resolved when it has not heard of it for four times as long.
	ResendEvery time.Duration `yaml:"resend_every"`

	severity doppelv1.Severity
	match    filter.Filter
}

var sinkName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// complete sets defaults and says what is wrong.
func (s *Sink) complete(env *filter.Env) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !sinkName.MatchString(s.Name) {
		bad("name: want lower-case letters, digits and -, at most 63")
	}
	if s.Kind != Webhook && s.Kind != Alertmanager {
		bad("kind: %q is neither webhook nor alertmanager", s.Kind)
	}
	u, err := url.Parse(s.URL)
	switch {
	case err != nil:
		bad("url: not a URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		bad("url: %q is not http://HOST… or https://HOST…", u.Redacted())
	case u.User != nil:
		bad("url: holds a user; give username and password_file")
	}
	severities := map[string]doppelv1.Severity{
		"": doppelv1.Severity_INFO, "info": doppelv1.Severity_INFO, "warning": doppelv1.Severity_WARNING, "critical": doppelv1.Severity_CRITICAL,
	}
	var known bool
	if s.severity, known = severities[strings.ToLower(s.MinSeverity)]; !known {
		bad("min_severity: %q is not info, warning or critical", s.MinSeverity)
	}
	if s.match, err = env.Compile(s.Filter); err != nil {
		bad("filter: %w", err)
	}
	if s.Mode != "" && s.Mode != "structured" && s.Mode != "binary" {
		bad("mode: %q is neither structured nor binary", s.Mode)
	}
	if s.Kind == Alertmanager && (s.Mode != "" || s.HMACSecretFile != "") {
		bad("mode, hmac_secret_file: only a webhook has them")
	}
	if s.BearerTokenFile != "" && s.Username != "" {
		bad("bearer_token_file, username: give one of them")
	}
	if (s.Username == "") != (s.PasswordFile == "") {
		bad("username, password_file: give both or neither")
	}
	for name := range s.Headers {
		if http.CanonicalHeaderKey(name) == "Content-Type" || strings.HasPrefix(strings.ToLower(name), "ce-") {
			bad("headers: %s is set by the delivery itself", name)
		}
	}
	if min(s.Timeout, s.MaxAge, s.ResendEvery) < 0 {
		bad("timeout, max_age, resend_every: must not be negative")
	}
	set(&s.Timeout, 10*time.Second)
	set(&s.MaxAge, 24*time.Hour)
	set(&s.ResendEvery, time.Minute)
	return errors.Join(errs...)
}

func set(v *time.Duration, def time.Duration) {
	if *v == 0 {
		*v = def
	}
}

// resolved says whether ends of alerts are told.
func (s *Sink) resolved() bool { return s.SendResolved == nil || *s.SendResolved }

// Parse reads a YAML file of sinks. nearest is the known key that an unknown one most likely means.
func Parse(b []byte, nearest func(key string, known []string) string) ([]Sink, error) {
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(b)).Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("is empty: want sinks")
		}
		return nil, err
	}
	if err := checkKeys(doc.Content[0], []string{"sinks"}, nearest); err != nil {
		return nil, err
	}
	for i, v := range doc.Content[0].Content {
		if i%2 == 0 || v.Kind != yaml.SequenceNode {
			continue
		}
		for _, item := range v.Content {
			if err := checkKeys(item, sinkKeys(), nearest); err != nil {
				return nil, err
			}
		}
	}
	var file struct {
		Sinks []Sink `yaml:"sinks"`
	}
	if err := doc.Decode(&file); err != nil {
		return nil, err
	}
	if len(file.Sinks) == 0 {
		return nil, errors.New("has no sinks")
	}
	env, err := filter.NewEnv(&doppelv1.Alert{})
	if err != nil {
		return nil, err
	}
	var errs []error
	for i := range file.Sinks {
		s := &file.Sinks[i]
		if err := s.complete(env); err != nil {
			errs = append(errs, fmt.Errorf("sink %q: %w", s.Name, err))
		}
		if slices.ContainsFunc(file.Sinks[:i], func(o Sink) bool { return o.Name == s.Name }) {
			errs = append(errs, fmt.Errorf("sink %q: there are two of that name", s.Name))
		}
	}
	return file.Sinks, errors.Join(errs...)
}

// sinkKeys are the keys of a sink.
func sinkKeys() []string {
	var keys []string
	for f := range reflect.TypeFor[Sink]().Fields() {
		if key := f.Tag.Get("yaml"); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

func checkKeys(n *yaml.Node, known []string, nearest func(string, []string) string) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: want a mapping", n.Line)
	}
	for i := 0; i < len(n.Content); i += 2 {
		if k := n.Content[i]; !slices.Contains(known, k.Value) {
			return fmt.Errorf("line %d: %s is not a setting; did you mean %s?", k.Line, k.Value, nearest(k.Value, known))
		}
	}
	return nil
}
