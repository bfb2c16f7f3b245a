package oracle

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// scraper reads /metrics.
type scraper struct {
	client *http.Client
	scheme string
	token  string
}

func newScraper(secure *tls.Config, token string) *scraper {
	s := &scraper{client: http.DefaultClient, scheme: "http://", token: token}
	if secure != nil {
		s.scheme, s.client = "https://", &http.Client{Transport: &http.Transport{TLSClientConfig: secure, ForceAttemptHTTP2: true}}
	}
	return s
}

// nodesCPU is the CPU time of all nodes that list names.
func (s *scraper) nodesCPU(ctx context.Context, list string) (sum time.Duration, err error) {
	all := addresses(list)
	if len(all) == 0 {
		return 0, errors.New("metrics: no address")
	}
	for _, address := range all {
		used, err := s.nodeCPU(ctx, address)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// nodeCPU reads process_cpu_seconds_total from a node's /metrics; address is HOST:PORT or a URL.
func (s *scraper) nodeCPU(ctx context.Context, address string) (time.Duration, error) {
	base := address
	if !strings.Contains(base, "://") {
		base = s.scheme + base
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/metrics", nil)
	if err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("metrics: status %d", res.StatusCode)
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		text, found := strings.CutPrefix(lines.Text(), "process_cpu_seconds_total ")
		if !found {
			continue
		}
		seconds, err := strconv.ParseFloat(strings.Fields(text)[0], 64)
		if err != nil {
			return 0, fmt.Errorf("metrics: %w", err)
		}
		return time.Duration(seconds * float64(time.Second)), nil
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	return 0, errors.New("metrics: no process_cpu_seconds_total")
}
