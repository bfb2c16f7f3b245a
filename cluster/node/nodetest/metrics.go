package nodetest

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Metrics are the samples of /metrics by what stands before the value, labels included.
type Metrics map[string]float64

// Metrics scrapes the node.
func (n *Node) Metrics() Metrics {
	n.t.Helper()
	m, err := Scrape(n.Addresses.HTTP)
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

// Scrape reads the metrics of a node by its HTTP address.
func Scrape(addr string) (Metrics, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scrape: %s", resp.Status)
	}
	m := make(Metrics)
	s := bufio.NewScanner(resp.Body)
	for s.Scan() {
		name, value, ok := cutLast(s.Text())
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(name, "#") {
			m[name] = v
		}
	}
	return m, s.Err()
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// Settled is the sum of what received samples became: with those held and in flight it must be all
// that were received.
func (m Metrics) Settled() float64 {
	var sum float64
	for _, result := range []string{"applied", "late", "duplicate", "dead_lettered"} {
		sum += m[`doppel_samples_total{result="`+result+`"}`]
	}
	return sum
}

// Letters is the count of dead letters of each reason met.
func (m Metrics) Letters() map[string]float64 {
	letters := make(map[string]float64)
	for name, v := range m {
		if rest, ok := strings.CutPrefix(name, `doppel_dead_letters_total{reason="`); ok {
			letters[strings.TrimSuffix(rest, `"}`)] = v
		}
	}
	return letters
}
