package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/store"
)

func TestAStoreOutlivesTheBroker(t *testing.T) {
	dir := t.TempDir()
	s := startServe(t, "--store", dir)
	url := s.url("tcp")
	keep := []string{"-i", "keeper", "-c", "-x", "1h", "-q", "1"}
	code, _, stderr := anyquic(t, "mqtt", "pub", url, "-t", "kept/1", "-m", "retained", "-q", "1", "-r")
	require.Zero(t, code, stderr)
	// A session that is left with a subscription.
	code, stdout, stderr := anyquic(t, append([]string{"mqtt", "sub", url, "-t", "kept/#", "-C", "1", "-W", "2m"}, keep...)...)
	require.Zero(t, code, stderr)
	require.Equal(t, "retained\n", stdout)
	code, _, stderr = anyquic(t, "mqtt", "pub", url, "-t", "kept/2", "-m", "waits", "-q", "1")
	require.Zero(t, code, stderr)
	s.counts(t, map[string]float64{"mqtt_store_messages": 1, "mqtt_store_failing": 0})
	_, metrics := s.get(t, "/metrics")
	require.Regexp(t, `anyquic_mqtt_store_commits_total [1-9]`, metrics)
	s.stop()

	s = startServe(t, "--store", dir, "--sync", "interval", "--sync-interval", "10ms")
	code, stdout, stderr = anyquic(t, append([]string{"mqtt", "sub", s.url("tcp"), "-t", "other", "-C", "1", "-W", "2m"}, keep...)...)
	require.Zero(t, code, stderr)
	require.Equal(t, "waits\n", stdout)
	_, metrics = s.get(t, "/metrics")
	require.Contains(t, metrics, "anyquic_mqtt_retained_messages 1\n")
	require.Contains(t, metrics, "anyquic_mqtt_store_damaged_records_total 0\n")

	// The folder has one user.
	code, _, stderr = anyquic(t, "serve", "--store", dir, "--tcp", "127.0.0.1:0", "--tls", "off", "--wss", "off", "--quic", "off", "--metrics", "off")
	require.NotZero(t, code)
	require.Contains(t, stderr, "--store: ")
}

// storeFigures are the lines of a scrape of storeStats.
var storeFigures = map[string]float64{
	"mqtt_store_commits_total": 1, "mqtt_store_commit_seconds_total": 2, "mqtt_store_changes_total": 3,
	"mqtt_store_changes_bytes_total": 4, "mqtt_store_pending_bytes": 5, "mqtt_store_failing": 1,
	"mqtt_store_failures_total": 6, "mqtt_store_refused_messages_total": 7, "mqtt_store_messages": 8,
	"mqtt_store_damaged_records_total": 9, "mqtt_store_disk_bytes": 10, "mqtt_store_disk_written_bytes_total": 11,
	"mqtt_store_compactions_total": 12,
}

var storeStats = broker.StoreStats{
	Group: store.GroupStats{
		Commits: 1, WriteTime: 2 * time.Second, Changes: 3, Bytes: 4, Pending: 5, Failing: true, Failures: 6,
	},
	Refused: 7, Messages: 8, Damaged: 9,
	Store: store.Stats{DiskBytes: 10, WrittenDisk: 11, Compactions: 12},
}

func TestEverySeriesOfTheStoreIsItsFigure(t *testing.T) {
	for _, s := range storeSeries {
		values := 0
		s.values(&figures{Stats: broker.Stats{Store: &storeStats}}, func(v any, labels ...string) {
			require.Empty(t, labels)
			require.Equal(t, storeFigures[s.name], v, s.name)
			values++
		})
		require.Equal(t, 1, values, s.name)
		s.values(&figures{}, func(any, ...string) { t.Error(s.name, "without a store") })
	}
}

func TestWrongSettingsOfTheStoreAreNamed(t *testing.T) {
	for flag, value := range map[string]string{"--sync": "sometimes", "--sync-interval": "0s"} {
		code, _, stderr := anyquic(t, "serve", "--check", flag, value)
		require.NotZero(t, code)
		require.Contains(t, stderr, flag)
	}
}
