package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// request is what is posted to a receiver.
type request struct {
	url    string
	body   []byte
	header map[string]string
}

// refusal is an answer that will not change.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

func isRefusal(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

var errNoAuthority = errors.New("holds no certificate")

func newClient(cfg *Sink) (*http.Client, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: lanes, MaxConnsPerHost: lanes, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: cfg.Timeout, ForceAttemptHTTP2: true,
	}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s: %w", cfg.CAFile, errNoAuthority)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	// A redirect would turn a POST into a GET, and send secrets elsewhere.
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// grace is how long a request may still take when its session is over.
const grace = 2 * time.Second

// post sends a request once. The error is a refusal if there is no use in trying again; wait is how long the
// receiver asks us to leave it alone.
func (s *sink) post(ctx context.Context, r *request) (wait time.Duration, err error) {
	ctx, cancel, err := s.patience(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(r.body))
	if err != nil {
		return 0, fmt.Errorf("notify: %w", err)
	}
	if err := s.headers(req, r); err != nil {
		return 0, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		if ue := (*url.Error)(nil); errors.As(err, &ue) { // its URL may hold a secret
			err = ue.Err
		}
		return 0, fmt.Errorf("notify: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // what is left of it is of no use
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	code := resp.StatusCode
	if code/100 == 2 {
		return 0, nil
	}
	err = fmt.Errorf("notify: %s: %.200q", resp.Status, said)
	if code/100 == 4 && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests {
		return 0, &refusal{err}
	}
	return retryAfter(resp.Header.Get("Retry-After"), time.Now()), err
}

// patience bounds a request: by its own time, and by a short one when the session ends meanwhile, so that what
// is nearly delivered is not delivered again.
func (s *sink) patience(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(grace, cancel)
		context.AfterFunc(bound, func() { t.Stop() })
	})
	return bound, func() { stop(); cancel() }, nil
}

// headers sets what the receiver asks for.
func (s *sink) headers(req *http.Request, r *request) error {
	for name, value := range s.cfg.Headers {
		req.Header.Set(name, value)
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	req.Header.Set("User-Agent", "doppel")
	switch {
	case s.cfg.BearerTokenFile != "":
		token, err := secret("bearer_token_file", s.cfg.BearerTokenFile)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	case s.cfg.Username != "":
		password, err := secret("password_file", s.cfg.PasswordFile)
		if err != nil {
			return err
		}
		req.SetBasicAuth(s.cfg.Username, password)
	}
	if s.cfg.HMACSecretFile != "" {
		key, err := secret("hmac_secret_file", s.cfg.HMACSecretFile)
		if err != nil {
			return err
		}
		req.Header.Set("Doppel-Signature", signature(key, time.Now(), r.body))
	}
	return nil
}

// signature is t=SECONDS,v1=HEX: the HMAC-SHA256 of SECONDS, a dot and the body. With the time in it an old
// request cannot be sent again by somebody else.
func signature(key string, now time.Time, body []byte) string {
	at := strconv.FormatInt(now.Unix(), 10)
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(at + "."))
	m.Write(body)
	return "t=" + at + ",v1=" + hex.EncodeToString(m.Sum(nil))
}

var errEmptySecret = errors.New("is empty")

// secret reads a file anew each time: secrets are changed while we run.
func secret(key, file string) (string, error) {
	b, err := os.ReadFile(file) //nolint:gosec // the user names it
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "", fmt.Errorf("%s: %s: %w", key, file, errEmptySecret)
	}
	return text, nil
}

// retryAfter is the pause that a receiver asks for, in seconds or as a date.
func retryAfter(text string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return max(0, min(d, retryAfterMost))
}
