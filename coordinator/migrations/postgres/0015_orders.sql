-- When a certificate was ordered for an instance, at whatever authority; kept for a day, also when the domain is
-- removed. No foreign key: whoever has been purged is counted on.
CREATE TABLE certificate_orders (
    instance_id TEXT COLLATE "C" NOT NULL,
    ordered_at  BIGINT NOT NULL
);
CREATE INDEX certificate_orders_of_instance ON certificate_orders (instance_id, ordered_at);
CREATE INDEX certificate_orders_by_time ON certificate_orders (ordered_at);
