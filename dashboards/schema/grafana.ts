// What a dashboard of ours may look like: Grafana's own types, with the options and queries of the panels that we use.
import * as schema from '@grafana/schema';
import { Options as BarGaugeOptions } from './node_modules/@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import { FieldConfig as HeatmapFieldConfig, Options as HeatmapOptions } from './node_modules/@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import { Options as StatOptions } from './node_modules/@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import { FieldConfig as TableFieldConfig, Options as TableOptions } from './node_modules/@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import { FieldConfig as TimeSeriesFieldConfig, Options as TimeSeriesOptions } from './node_modules/@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// The schema's own data link is `unknown`, and its Prometheus query lives in a package of the plugin.
interface DataLink {
  title: string;
  url: string;
  targetBlank?: boolean;
}

interface PrometheusQuery {
  datasource: Required<Pick<schema.DataSourceRef, 'type' | 'uid'>>;
  editorMode: 'code';
  exemplar: boolean;
  expr: string;
  format: 'time_series' | 'table' | 'heatmap';
  instant: boolean;
  legendFormat: string;
  range: boolean;
  refId: string;
}

interface FieldDefaults<Custom> extends Omit<schema.FieldConfig, 'custom' | 'links'> {
  custom?: Custom;
  links?: DataLink[];
}

interface PanelOf<Type extends string, Options, Custom>
  extends Omit<schema.Panel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'title' | 'description' | 'datasource'> {
  type: Type;
  title: string;
  description: string;
  datasource: Required<Pick<schema.DataSourceRef, 'type' | 'uid'>>;
  options: Options;
  fieldConfig: { defaults: FieldDefaults<Custom>; overrides: schema.FieldConfigSource['overrides'] };
  targets: PrometheusQuery[];
}

export interface BarGaugePanel extends PanelOf<'bargauge', BarGaugeOptions, {}> {}
export interface HeatmapPanel extends PanelOf<'heatmap', HeatmapOptions, HeatmapFieldConfig> {}
export interface StatPanel extends PanelOf<'stat', StatOptions, {}> {}
export interface TablePanel extends PanelOf<'table', TableOptions, TableFieldConfig> {}
export interface TimeSeriesPanel extends PanelOf<'timeseries', TimeSeriesOptions, TimeSeriesFieldConfig> {}

export interface Dashboard extends Omit<schema.Dashboard, 'panels'> {
  __requires: Array<{ type: string; id: string; name: string; version: string }>;
  panels: Array<BarGaugePanel | HeatmapPanel | StatPanel | TablePanel | TimeSeriesPanel | schema.RowPanel>;
}
