-- Version 4: lists and figures of deliveries by time, and of those that wait or failed.
CREATE INDEX delivery_by_time ON delivery (account_id, created_at);
CREATE INDEX delivery_unsettled ON delivery (account_id, status, created_at) WHERE status <> 'delivered';
